"""Subgraphs unfolded: every use of a definition becomes a scope of its own, with the ids and values it has there."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from graph.problems import InvalidWorkflow, Problem
from workflows.editor.document import EditorDocument, EditorGraph, EditorNode, Slot, Subgraph
from workflows.editor.shapes import a_list, an_object

DEEPEST = 64
MOST_NODES = 200_000
"""A few definitions that use each other twice would unfold to any number of nodes."""


@dataclass(frozen=True, slots=True)
class Promoted:
    """A widget shown on the outside of a subgraph: one of its inputs' (`index`), or an inner node's (`node_id`)."""

    name: str
    index: int | None = None
    node_id: str = ""


@dataclass(eq=False)
class Scope:
    """A graph in its place: the document itself, or one use of a subgraph."""

    graph: EditorGraph
    prefix: str = ""
    parent: "Scope | None" = None
    instance: EditorNode | None = None
    inputs: dict[int, object] = field(default_factory=dict[int, object])
    """Values given outside to the subgraph's inputs, by index; they count where no link arrives."""
    widgets: dict[str, dict[str, object]] = field(default_factory=dict[str, dict[str, object]])
    """Values given outside to widgets of inner nodes: inner id → name → value."""
    inner: dict[str, "Scope"] = field(default_factory=dict[str, "Scope"])
    """The scopes of the subgraphs used here, by the id of the node that uses them."""

    @cached_property
    def outside(self) -> Mapping[str, Slot]:
        """The inputs of the node that uses the subgraph, by name."""
        return {slot.name: slot for slot in reversed(self.instance.inputs)} if self.instance is not None else {}

    def id(self, node_id: str) -> str:
        """The id that a node of this graph has in API-format: `5:12` for node 12 of the subgraph that node 5 is."""
        return f"{self.prefix}{node_id}"


Placed = tuple[Scope, EditorNode]


def unfold(document: EditorDocument) -> list[Placed]:
    """Every node with the scope it is in, subgraphs' nodes in their subgraph's place. Raises InvalidWorkflow."""
    root = Scope(document.root)
    placed: list[Placed] = []
    chain: list[str] = []
    unfolded = len(document.root.nodes)
    stack: list[tuple[Scope, Iterator[EditorNode]]] = [(root, _in_order(root.graph))]
    while stack:
        scope, nodes = stack[-1]
        node = next(nodes, None)
        if node is None:
            stack.pop()
            if chain:
                chain.pop()
            continue
        placed.append((scope, node))
        subgraph = document.subgraphs.get(node.type)
        if subgraph is None or node.muted or node.bypassed:
            continue
        unfolded += len(subgraph.nodes) + len(subgraph.inputs)
        _refuse_endless(scope, node, subgraph, chain, unfolded)
        chain.append(subgraph.id)
        scope.inner[node.id] = opened = _opened(scope, node, subgraph)
        stack.append((opened, _in_order(subgraph)))
    return placed


def _in_order(graph: EditorGraph) -> Iterator[EditorNode]:
    return iter(sorted(graph.nodes.values(), key=lambda node: node.rank))


def _refuse_endless(scope: Scope, node: EditorNode, subgraph: Subgraph, chain: list[str], unfolded: int) -> None:
    if subgraph.id in chain:
        message, kind = f"the subgraph {subgraph.name or subgraph.id!r} contains itself", "cycle"
    elif len(chain) >= DEEPEST:
        message, kind = f"subgraphs are nested more than {DEEPEST} deep", "not_a_workflow"
    elif unfolded > MOST_NODES:
        message, kind = f"with its subgraphs unfolded this workflow has more than {MOST_NODES} nodes", "not_a_workflow"
    else:
        return
    raise InvalidWorkflow([Problem(kind, message, node_id=scope.id(node.id), class_name=subgraph.name or node.type)])


def _opened(scope: Scope, node: EditorNode, subgraph: Subgraph) -> Scope:
    """The scope of one use of a subgraph, with the values that its widgets have on the outside."""
    opened = Scope(subgraph, f"{scope.id(node.id)}:", scope, node)
    further_out = scope.widgets.get(node.id, {})
    shown = _promoted(node, subgraph)
    for widget, value in zip(shown, _given(node.widgets_values, shown), strict=True):
        for name in (widget.name, f"{widget.node_id}: {widget.name}"):
            value = further_out.get(name, value)
        # One that was never written down has the value that stands inside.
        if value is not None and widget.index is not None:
            opened.inputs[widget.index] = value
        elif value is not None:
            opened.widgets.setdefault(widget.node_id, {})[widget.name] = value
    return opened


def _given(values: object, widgets: Sequence[Promoted]) -> Sequence[object]:
    """The value of each widget; None where none is given."""
    if named := an_object(values):
        return [named.get(widget.name) for widget in widgets]
    return [*a_list(values), *[None] * len(widgets)][: len(widgets)]


def _promoted(node: EditorNode, subgraph: Subgraph) -> list[Promoted]:
    """The widgets on the outside of a subgraph, in their order.

    First the inputs that lead to a widget, then what `proxyWidgets` names: `[inner id, widget name]`, or `["-1",
    input]` for an input's, which then stands in this place.
    """
    behind = set(subgraph.behind_inputs.values())
    proxies = list(dict.fromkeys(_proxies(node, subgraph)))
    mentioned = {proxy.index for proxy in proxies}
    with_widget = {slot.name for slot in node.inputs if slot.widget_name}
    inputs = [
        Promoted(name, index)
        for index, name in enumerate(subgraph.inputs)
        if (index in behind or name in with_widget) and index not in mentioned
    ]
    return inputs + proxies


def _proxies(node: EditorNode, subgraph: Subgraph) -> Iterator[Promoted]:
    """What `proxyWidgets` names; a widget inside that an input leads to is that input's."""
    indices = {name: index for index, name in reversed([*enumerate(subgraph.inputs)])}
    for entry in a_list(node.property("proxyWidgets")):
        match a_list(entry):
            case [str() | int() as inner, str(name)] if str(inner) == "-1":
                if name in indices:
                    yield Promoted(name, indices[name])
            case [str() | int() as inner, str(name)]:
                index = subgraph.behind_inputs.get((str(inner), name))
                yield Promoted(name, node_id=str(inner)) if index is None else Promoted(subgraph.inputs[index], index)
            case _:
                pass
