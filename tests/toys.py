"""A tiny world for the engine's tests: values, nodes that note when they run, and a loom to run them on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from graph.cancellation import Cancellation
from graph.catalogue import AnyNode, Catalogue
from graph.errors import RunFailed
from graph.events import Event
from graph.execute import run
from graph.executor import Result
from graph.folders import Folders
from graph.node import node
from graph.problems import InvalidWorkflow, Problem
from graph.resolve import Graph, resolve
from graph.store import MemoryStore, Store
from graph.values import Service, Ui, Value
from graph.workflow import read

NOWHERE = Folders.below(Path("/nowhere"))
Inputs = Mapping[str, Any]


@dataclass(frozen=True)
class Yarn(Value, kind="YARN"):
    colour: str = "red"
    length: int = 1


@dataclass(frozen=True)
class Cloth(Value, kind="CLOTH"):
    threads: tuple[Yarn, ...]


@dataclass(frozen=True)
class Wool(Yarn):
    """A yarn that keeps its kind's name."""


@dataclass(frozen=True)
class Note(Ui):
    text: str


class Pair(NamedTuple):
    warp: Yarn
    weft: Yarn


def use(class_type: str, /, title: str | None = None, **inputs: Any) -> dict[str, Any]:
    """One entry of a workflow document."""
    return {"class_type": class_type, "inputs": inputs} | ({"_meta": {"title": title}} if title else {})


def graph_of(nodes: list[Any], document: Mapping[str, Any], targets: list[str] | None = None) -> Graph:
    return resolve(read(dict(document)), Catalogue(nodes), NOWHERE, targets)


def problems_of(nodes: list[Any], document: Mapping[str, Any], targets: list[str] | None = None) -> tuple[Problem, ...]:
    """What is wrong with a document; nothing if it can run."""
    try:
        graph_of(nodes, document, targets)
    except InvalidWorkflow as error:
        return error.problems
    return ()


@dataclass
class Loom:
    """Nodes that write their names into `ran`, a store, and the events of the last run."""

    store: Store = field(default_factory=lambda: MemoryStore(1 << 30))
    ran: list[str] = field(default_factory=list[str])
    events: list[Event] = field(default_factory=list[Event])
    extra: list[AnyNode] = field(default_factory=list[AnyNode])

    def nodes(self) -> list[AnyNode]:
        ran = self.ran

        @node("Spin")
        def spin(colour: str = "red", length: int = 1) -> Yarn:
            ran.append(f"spin {colour}")
            return Yarn(colour, length)

        @node("Twist")
        def twist(a: Yarn, b: Yarn | None = None) -> Yarn:
            ran.append(f"twist {a.colour}")
            return Yarn(a.colour, a.length + (b.length if b else 0))

        @node("Weave")
        def weave(warp: Yarn, weft: Yarn) -> Cloth:
            ran.append("weave")
            return Cloth((warp, weft))

        @node("Split")
        def split(yarn: Yarn) -> Pair:
            ran.append("split")
            return Pair(yarn, Yarn(yarn.colour, yarn.length + 1))

        @node("Number")
        def number(value: int = 1) -> int:
            ran.append("number")
            return value

        @node("Half")
        def half(value: float = 1) -> float:
            ran.append("half")
            return value / 2

        @node("Show")
        def show(what: Value) -> Note:
            ran.append("show")
            return Note(str(what))

        @node("Tell")
        def tell(number: float = 0) -> Note:
            ran.append("tell")
            return Note(repr(number))

        @node("Fail")
        def fail(yarn: Yarn | None = None) -> Yarn:
            ran.append("fail")
            raise ValueError("the thread broke")

        return [spin, twist, weave, split, number, half, show, tell, fail, *self.extra]

    def run(
        self,
        document: Mapping[str, Any],
        targets: list[str] | None = None,
        *,
        services: Mapping[type[Service], Service] | None = None,
        cancellation: Cancellation | None = None,
        emit: Callable[[Event], None] | None = None,
    ) -> Result:
        """Run a document with nothing in `ran` and `events` but this run."""
        self.ran.clear()
        self.events.clear()
        graph = graph_of(self.nodes(), document, targets)

        def take(event: Event) -> None:
            self.events.append(event)
            if emit is not None:
                emit(event)

        return run(graph, self.store, folders=NOWHERE, services=services, emit=take, cancellation=cancellation)

    def value(self, document: Mapping[str, Any], target: str = "end") -> Any:
        """The first output of a node, which must not fail."""
        result = self.run(document, [target])
        if result.failures:
            raise RunFailed(result.failures)
        return result.outputs[target][0]

    def told(self) -> list[str]:
        """The events of the last run as `kind id`."""
        return [f"{type(event).__name__} {getattr(event, 'node_id', '')}".strip() for event in self.events]
