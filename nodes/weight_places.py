"""Where a network's weights lie in a file: under which name, which share of the rows, turned or not."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nodes.safetensors_header import TensorEntry

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]


class Place(NamedTuple):
    """A tensor of a file, or some shares of its rows; `turned`: transposed.

    The rows are in shares of these lengths, relative to one another, of which those with the numbers `taken` follow one
    another in this order.
    """

    name: str
    shares: tuple[int, ...] = (1,)
    taken: tuple[int, ...] = (0,)
    turned: bool = False

    @property
    def whole(self) -> bool:
        """Whether all rows are taken as they are."""
        return len(self.shares) == 1

    def spans(self, rows: int) -> list[tuple[int, int]]:
        """Where each share that is taken begins among the rows of the file, and how many rows it has."""
        unit = rows // sum(self.shares)
        return [(unit * sum(self.shares[:at]), unit * self.shares[at]) for at in self.taken]

    def shape(self, found: Shape) -> Shape:
        """The shape that comes of a tensor of shape `found`; that of the tensor itself if it has no such shares."""
        if self.whole or not found or found[0] % sum(self.shares):
            rows = found
        else:
            rows = (sum(length for _, length in self.spans(found[0])), *found[1:])
        return tuple(reversed(rows)) if self.turned else rows


@dataclass(frozen=True)
class NetworkPlan:
    """How a network is built, and the places where each of its weights may lie, the likeliest first.

    `config` are the arguments of diffusers' or transformers' class. Names of the file that `unused` accepts have no
    place in the network and need none.
    """

    config: Mapping[str, Any]
    places: Callable[[str], Sequence[Place]]
    unused: Callable[[str], bool] = field(default=lambda name: False)


class NotThisNetwork(ValueError):
    """The names and shapes of a file do not describe a network of the kind that was looked for."""


def shapes_below(entries: Mapping[str, TensorEntry], prefix: str) -> dict[str, Shape]:
    """The shapes of the tensors whose names start with a prefix, by the rest of their names."""
    return {name[len(prefix) :]: entry.shape for name, entry in entries.items() if name.startswith(prefix)}


def shape_of(shapes: Shapes, name: str, rank: int) -> Shape:
    """The shape of a tensor that a network must have. Raises NotThisNetwork."""
    found = shapes.get(name)
    if found is None:
        raise NotThisNetwork(f"there is no {name}")
    if len(found) < rank or not all(found):
        raise NotThisNetwork(f"{name} has the shape {list(found)}")
    return found


def count(shapes: Shapes, pattern: str) -> int:
    """How many of `pattern.format(0)`, `pattern.format(1)` … there are, one after another."""
    number = 0
    while pattern.format(number) in shapes:
        number += 1
    return number


class NameTable:
    """Pairs of module names, in diffusers' networks and in the original layout; names are translated both ways."""

    def __init__(self, pairs: Mapping[str, str]) -> None:
        self._original = dict(pairs)
        self._diffusers = {original: diffusers for diffusers, original in pairs.items()}

    def original(self, name: str) -> str:
        return _renamed(name, self._original)

    def diffusers(self, name: str) -> str:
        return _renamed(name, self._diffusers)


def _renamed(name: str, table: Mapping[str, str]) -> str:
    """The name with the longest start that the table knows replaced; unchanged where it knows none."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        start = table.get(".".join(parts[:end]))
        if start is not None:
            return ".".join((start, *parts[end:]))
    return name


def tabulated(modules: Mapping[str, Place]) -> dict[str, Place]:
    """Where the weights and biases of modules lie, of which the places are given."""
    return {
        f"{module}.{kind}": place._replace(name=f"{place.name}.{kind}")
        for module, place in modules.items()
        for kind in ("weight", "bias")
    }


def placed(shapes: Shapes, table: Mapping[str, Place]) -> dict[str, Shape]:
    """The shapes of a file's tensors by the names that a table has for their places."""
    return {name: place.shape(shapes[place.name]) for name, place in table.items() if place.name in shapes}
