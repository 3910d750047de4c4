"""Calling a node inside a builder or a composite records a step instead of running it."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

if TYPE_CHECKING:
    from graph.node import Node


class Link:
    """The output of a step that has not run yet. It can only be passed on to another node."""

    __slots__ = ("output", "owner", "step")

    def __init__(self, step: str, output: int, owner: object) -> None:
        self.step = step
        self.output = output
        self.owner = owner
        """The builder or the composite in which it was made, and in which alone it means something."""

    def __repr__(self) -> str:
        return f"<output {self.output} of step {self.step}>"

    def __bool__(self) -> NoReturn:
        raise TypeError(self._not_yet("its truth"))

    def _refuse(self, *others: object) -> NoReturn:
        raise TypeError(self._not_yet("its value"))

    # Without these, Python would compare identities, or say that a Link cannot do it but not why.
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __len__ = __iter__ = __getitem__ = __contains__ = __int__ = __float__ = __index__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __neg__ = __abs__ = _refuse
    __hash__ = object.__hash__

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(self._not_yet(f"{name!r}"))

    def _not_yet(self, what: str) -> str:
        return (
            f"output {self.output} of step {self.step!r} is not computed yet, so {what} cannot be read here: "
            "pass it on to a node, or, in a composite, declare the parameter as Known[...]"
        )


def owned(link: Link, owner: object) -> tuple[str, int]:
    """Step and output of a link that was made by `owner`. Raises TypeError for a link from elsewhere."""
    if link.owner is not owner:
        raise TypeError(f"{link!r} was made in another workflow or composite, where it has to stay")
    return link.step, link.output


class Recorder(Protocol):
    """Takes down the calls of nodes."""

    def add(
        self, node: "Node[Any, Any]", arguments: Mapping[str, object], title: str | None = None
    ) -> tuple[Link, ...]:
        """Record one call; the links stand for its outputs."""
        ...


recorder: ContextVar[Recorder | None] = ContextVar("recorder", default=None)


@contextmanager
def recording(into: Recorder | None) -> Generator[None]:
    """Record the calls of nodes in this block (None: run them, whatever surrounds the block)."""
    token = recorder.set(into)
    try:
        yield
    finally:
        recorder.reset(token)
