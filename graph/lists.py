"""Lists of values, and blocked values: what a link can carry beside one value."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Items:
    """A list on a link. What takes its items one by one runs once for each; what takes `Many[...]` gets them all."""

    values: tuple[object, ...]

    @property
    def nbytes(self) -> int:
        from graph.values import size_of

        return size_of(self.values)


@dataclass(frozen=True, slots=True)
class Blocked:
    """In place of a value: what needs it is not run, and gives blocked values itself. No failure.

    `message` says why, to whoever watches, where it first stops a node.
    """

    message: str | None = None
    nbytes = 64


def blocked(message: str | None = None) -> Any:
    """What a node returns, in place of an output or of all of them, to keep what follows from running."""
    return Blocked(message)
