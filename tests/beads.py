"""A small world of numbers for flow, lists and loops. What is called is noted, with what it was given."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from graph.errors import NodeError
from graph.events import Event
from graph.execute import run
from graph.executor import Executor, Result
from graph.lists import Items, blocked
from graph.node import Known, Many, composite, node
from graph.resolve import Graph
from graph.store import MemoryStore, Store
from graph.values import Ui, Value
from nodes import flow, lists
from tests.toys import NOWHERE, graph_of


@dataclass(frozen=True)
class Bead(Value, kind="BEAD"):
    number: int


@dataclass(frozen=True)
class Shown(Ui):
    text: str


class Halves(NamedTuple):
    low: Bead
    high: Bead
    odd: int


class Spread(NamedTuple):
    beads: Many[Bead]
    size: int


calls: list[tuple[Any, ...]] = []


@node("Bead")
def bead(number: int = 0) -> Bead:
    calls.append(("Bead", number))
    return Bead(number)


@node("Join")
def join(a: Bead, b: Bead | None = None, plus: int = 0) -> Bead:
    calls.append(("Join", a, b, plus))
    return Bead((a.number + (b.number if b else 0) + plus) % 97)


@node("Halve")
def halve(bead: Bead) -> Halves:
    calls.append(("Halve", bead))
    low = bead.number // 2
    return Halves(Bead(low), Bead(bead.number - low), bead.number % 2)


@node("Weigh", cutoff=True)
def weigh(bead: Bead) -> int:
    calls.append(("Weigh", bead))
    return bead.number % 5


@node("Polish", cutoff=True)
def polish(bead: Bead, grain: int = 4) -> Bead:
    calls.append(("Polish", bead, grain))
    return Bead(bead.number // (grain + 1) * (grain + 1))


@node("Chip")
def chip(bead: Bead) -> Bead:
    calls.append(("Chip", bead))
    if bead.number % 5 == 3:
        raise ValueError("it broke")
    return Bead(bead.number + 1)


@node("Roll", impure=True)
def roll(bead: Bead) -> Bead:
    calls.append(("Roll", bead))
    return Bead(bead.number + 2)


@node("Sieve")
def sieve(bead: Bead) -> Bead:
    calls.append(("Sieve", bead))
    return blocked("too small") if bead.number % 4 == 1 else bead


@node("Scatter")
def scatter(bead: Bead, count: int = 2) -> Spread:
    calls.append(("Scatter", bead, count))
    return Spread([Bead(bead.number + at) for at in range(count)], count)


@node("Thread")
def thread(beads: Many[Bead], knot: int = 0) -> Bead:
    calls.append(("Thread", *beads, knot))
    return Bead((sum(bead.number * (at + 1) for at, bead in enumerate(beads)) + knot) % 97)


@node("Assort", cutoff=True)
def assort(beads: Many[Bead]) -> Many[Bead]:
    calls.append(("Assort", *beads))
    return sorted({Bead(bead.number // 2) for bead in beads}, key=lambda bead: bead.number)


@composite("Grow")
def grow(bead: Bead, times: int = 2) -> Bead:
    for at in range(times):
        bead = join(bead, plus=at + 1)
    return bead


@composite("Look")
def look(bead: Known[Bead], other: Bead | None = None) -> Bead:
    """What `other` is does not matter unless the bead is odd."""
    return join(bead, other) if bead.number % 2 and other is not None else bead


@composite("Fork")
def fork(bead: Bead, times: int = 1) -> Halves:
    once = grow(bead, times)
    low, _, odd = halve(once)
    return Halves(low, chip(once), odd)


@composite("Fan")
def fan(bead: Bead, count: int = 2) -> Many[Bead]:
    return [grow(bead, at) for at in range(count)]


@composite("All")
def all_of(beads: Many[Bead]) -> Bead:
    whole = beads[0]
    for bead in beads[1:]:
        whole = join(whole, bead)
    return whole


@composite("Descend")
def descend(bead: Known[Bead]) -> Bead:
    """Itself again and again, until the number is small."""
    return bead if bead.number < 10 else descend(polish(halve(bead).low, 1))


@node("Show")
def show(what: Any) -> Shown:
    calls.append(("Show", what))
    return Shown(str(what))


@composite("ShowTwice")
def show_twice(bead: Bead) -> Shown:
    show(grow(bead, 1))
    return show(polish(bead))


NODES: list[Any] = [
    *(bead, join, halve, weigh, polish, chip, roll, sieve, scatter, thread, assort),
    *(grow, look, fork, fan, all_of, descend, show, show_twice),
    *(flow.switch, flow.choose, flow.gate, flow.for_each, flow.for_each_end, flow.begin_while, flow.end_while),
    *(flow.compare, flow.negate, flow.calculate),
    *(lists.make_list, lists.list_item, lists.list_slice, lists.repeat_item, lists.list_length, lists.number_range),
]


@dataclass
class Tray:
    """Runs documents of beads, and knows what the last run did."""

    store: Store = field(default_factory=lambda: MemoryStore(1 << 30))
    extra: list[Any] = field(default_factory=list[Any])
    executor: Executor | None = None
    ran: list[str] = field(default_factory=list[str])
    """The classes of the nodes that were called."""
    calls: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])
    events: list[Event] = field(default_factory=list[Event])

    def run(self, document: Mapping[str, Any], *targets: str) -> Result:
        """Run the targets, or else the output nodes."""
        return self.run_graph(graph_of([*NODES, *self.extra], document, list(targets) or None))

    def run_graph(self, graph: Graph) -> Result:
        calls.clear()
        self.events.clear()
        how = self.executor.run if self.executor else run
        result = how(graph, self.store, folders=NOWHERE, emit=self.events.append)
        self.calls = list(calls)
        self.ran = [name for name, *_ in calls]
        return result

    def end(self, document: Mapping[str, Any]) -> Any:
        """The first output of `end`: a number, or a list of them."""
        return plain(self.run(document, "end").checked().outputs["end"][0])

    def shown(self, document: Mapping[str, Any]) -> list[str]:
        """What the output nodes show, in no order."""
        return sorted(ui.text for ui in self.run(document).checked().shown.values() if isinstance(ui, Shown))

    def failure(self, document: Mapping[str, Any]) -> NodeError:
        """Why `end` fails."""
        (found,) = self.run(document, "end").failures
        return found


def plain(value: Any) -> Any:
    """Beads as numbers, and what is on a link as a list."""
    match value:
        case Bead():
            return value.number
        case Items():
            return [plain(item) for item in value.values]
        case _:
            return value
