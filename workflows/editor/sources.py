"""Where a connection comes from in the end: past reroutes, bypassed nodes and the borders of subgraphs."""

from collections.abc import Iterable
from dataclasses import dataclass

from graph.problems import Problem, describe_step
from workflows.editor.document import INPUTS, PRIMITIVE, REROUTE, VIRTUAL, EditorNode, Slot, Subgraph
from workflows.editor.scopes import Scope


@dataclass(frozen=True, slots=True)
class OutputOf:
    """The output of a node that runs; `id` is its id in API-format."""

    id: str
    slot: int


@dataclass(frozen=True)
class Given:
    """A value: from a primitive node, or from the widget on a subgraph's outside."""

    value: object


@dataclass(frozen=True, slots=True)
class Unconnected:
    """Nothing arrives, as if there were no connection; `why` if that is no intention."""

    why: str = ""


@dataclass(frozen=True, slots=True)
class Removed:
    """It comes from a muted node: the input is left out."""

    why: str


Source = OutputOf | Given | Unconnected | Removed
Connection = tuple[Scope, str]
"""A link in its scope, by id."""


class Sources:
    """Finds sources; each connection is followed once, however many inputs it leads to."""

    def __init__(self, problems: list[Problem]) -> None:
        self._problems = problems
        self._known: dict[Connection, Source] = {}

    def of(self, scope: Scope, link_id: str) -> Source:
        """What arrives at an input that names this link."""
        path: dict[Connection, None] = {}
        at: Connection | Source = (scope, link_id)
        while isinstance(at, tuple):
            if at in path:
                self._report_circle([*path][[*path].index(at) :])
                at = Unconnected()
            elif at in self._known:
                at = self._known[at]
            else:
                path[at] = None
                at = _before(*at)
        for passed in reversed(path):
            if isinstance(at, Unconnected):
                at = _given_at_border(*passed) or at
            self._known[passed] = at
        return at

    def _report_circle(self, circle: list[Connection]) -> None:
        nodes = [origin for connection in circle if (origin := _origin(*connection)) is not None]
        names = " ← ".join(f"{scope.id(node.id)} ({node.type})" for scope, node in [*nodes, nodes[0]])
        scope, node = nodes[0]
        message = f"the connections through it go round in a circle: {names}"
        self._problems.append(
            Problem(
                "cycle",
                message,
                node_id=scope.id(node.id),
                class_name=node.type,
                suggestion="remove one of these connections",
            )
        )


def _origin(scope: Scope, link_id: str) -> tuple[Scope, EditorNode] | None:
    """The node a connection comes from; for one from a subgraph's inputs the node that uses the subgraph."""
    link = scope.graph.links[link_id]
    if link.origin_id == INPUTS and scope.parent is not None and scope.instance is not None:
        return scope.parent, scope.instance
    node = scope.graph.nodes.get(link.origin_id)
    return None if node is None else (scope, node)


def _before(scope: Scope, link_id: str) -> Connection | Source:
    """One step upstream: the connection before this one, or where it begins."""
    link = scope.graph.links.get(link_id)
    if link is None:
        return Unconnected(f"its link {link_id} is not in the document")
    if link.origin_id == INPUTS and scope.parent is not None:
        slot = _outside(scope, link.origin_slot)
        return (scope.parent, slot.link) if slot is not None and slot.link is not None else Unconnected()
    node = scope.graph.nodes.get(link.origin_id)
    if node is None:
        return Unconnected(f"it is linked to node {scope.id(link.origin_id)}, which is not in the document")
    if node.type == PRIMITIVE:
        return _primitive(node)
    if node.muted:
        return Removed(f"it comes from {place(scope, node)}, which is muted")
    if node.bypassed or node.type == REROUTE:
        before = _passing(node, link.origin_slot)
        return (scope, before.link) if before is not None and before.link is not None else Unconnected()
    if node.type in VIRTUAL:
        return Unconnected()
    inner = scope.inner.get(node.id)
    if inner is None:
        return OutputOf(scope.id(node.id), link.origin_slot)
    inner_link = inner.graph.outputs.get(link.origin_slot) if isinstance(inner.graph, Subgraph) else None
    return (inner, inner_link) if inner_link is not None else Unconnected()


def _outside(scope: Scope, index: int) -> Slot | None:
    """The input of the subgraph's node that stands for this input of its definition: by name, or else by place."""
    instance, subgraph = scope.instance, scope.graph
    if instance is None or not isinstance(subgraph, Subgraph) or not 0 <= index < len(subgraph.inputs):
        return None
    named = scope.outside.get(subgraph.inputs[index])
    if named is None and len(instance.inputs) == len(subgraph.inputs):
        return instance.inputs[index]
    return named


def _given_at_border(scope: Scope, link_id: str) -> Given | None:
    """The value of the widget on the subgraph's outside, if this is a connection from one of its inputs."""
    link = scope.graph.links.get(link_id)
    if link is not None and link.origin_id == INPUTS and link.origin_slot in scope.inputs:
        return Given(scope.inputs[link.origin_slot])
    return None


def _primitive(node: EditorNode) -> Source:
    """A primitive node gives the value of its first widget, muted or not, as it does so before anything is left out."""
    match node.widgets_values:
        case [value, *_]:
            return Given(value)
        case {"value": value}:
            return Given(value)
        case _:
            return Unconnected()


def _passing(node: EditorNode, output: int) -> Slot | None:
    """The input that a bypassed node, or a reroute, hands on at this output."""
    if node.type == REROUTE:
        return node.inputs[0] if node.inputs else None
    if not 0 <= output < len(node.outputs):
        return None
    kind = node.outputs[output].type
    same = node.inputs[output] if output < len(node.inputs) else None
    if kind == "*":
        return same or (node.inputs[0] if node.inputs else None)
    if same is not None and compatible(same.type, kind):
        return same
    return _first(slot for slot in node.inputs if slot.type == kind) or _first(
        slot for slot in node.inputs if compatible(slot.type, kind)
    )


def _first(slots: Iterable[Slot]) -> Slot | None:
    return next(iter(slots), None)


def compatible(one: str, other: str) -> bool:
    """Whether an editor would connect these types: `*` fits everything, and a type may be a list with commas."""
    kinds, others = ({kind.strip().lower() for kind in each.split(",")} for each in (one, other))
    return "*" in kinds | others or not kinds.isdisjoint(others)


def place(scope: Scope, node: EditorNode) -> str:
    """How messages name a node of an editor document."""
    return describe_step(scope.id(node.id), node.type, node.title if isinstance(node.title, str) else None)
