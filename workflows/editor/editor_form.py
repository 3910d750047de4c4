"""From API-format to an editor's document: nodes laid out left to right, with slots, links and widgets' values."""

from dataclasses import dataclass, field
from typing import Any, cast
from uuid import NAMESPACE_OID, uuid5

from graph.problems import InvalidWorkflow, Problem, ProblemKind, nearest
from graph.workflow import Workflow, WorkflowNode
from workflows.editor.api_form import LITERALS, MOST_SUGGESTIONS
from workflows.editor.descriptions import DescribedInput, Description, Descriptions, NodeInfos
from workflows.editor.document import S_AND_R, VIRTUAL
from workflows.editor.layout import Size, in_order, positions
from workflows.editor.shapes import an_object
from workflows.editor.texts import unspoken
from workflows.editor.widgets import array_of

LARGEST_NUMBER = 2**53
"""Ids beyond it stay text: JavaScript would round them."""
WIDTH, HEADING, ROW, WIDGET, TEXT, PICTURE = 320.0, 10.0, 20.0, 24.0, 110.0, 240.0


def to_editor(workflow: Workflow, nodes: NodeInfos) -> dict[str, Any]:
    """An editor's document (version 0.4) that `to_api` turns back into this workflow. Raises InvalidWorkflow.

    Inputs that were left out come back with their defaults. What no widget of an editor can hold is kept in a
    property of its node. A seed stays as it is from run to run. In a file's prefix, `%date:…%` and `%node.widget%` come
    back filled in, as an editor would send them.
    """
    return _Drawing(workflow, nodes).document()


@dataclass
class _Drawn:
    """A node on its way into the document."""

    id: int | str
    used: WorkflowNode
    description: Description
    literals: dict[str, Any] = field(default_factory=dict[str, Any])
    links: dict[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])

    @property
    def needs(self) -> set[str]:
        return {source for source, _ in self.links.values()}


class _Drawing:
    def __init__(self, workflow: Workflow, nodes: NodeInfos) -> None:
        self.workflow = workflow
        self.descriptions = Descriptions(nodes)
        self.problems: list[Problem] = []
        self.drawn: dict[str, _Drawn] = {}

    def document(self) -> dict[str, Any]:
        for node_id, used in self.workflow.items():
            description = self._described(node_id, used)
            if description is not None:
                self.drawn[node_id] = _Drawn(_as_number(node_id), used, description)
        for node_id, drawn in self.drawn.items():
            self._sort_inputs(node_id, drawn)
        if self.problems:
            raise InvalidWorkflow(self.problems)
        nodes, links = self._connected()
        return {
            "id": str(uuid5(NAMESPACE_OID, repr([(drawn.id, drawn.used.class_type) for drawn in self.drawn.values()]))),
            "revision": 0,
            "last_node_id": max((drawn.id for drawn in self.drawn.values() if isinstance(drawn.id, int)), default=0),
            "last_link_id": len(links),
            "nodes": nodes,
            "links": links,
            "groups": [],
            "config": {},
            "extra": {},
            "version": 0.4,
        }

    def _described(self, node_id: str, used: WorkflowNode) -> Description | None:
        description = self.descriptions.get(used.class_type)
        if description is None:
            hint = nearest(used.class_type, self.descriptions.names) if len(self.problems) < MOST_SUGGESTIONS else None
            self._report("unknown_class", node_id, f"there is no node called {used.class_type!r}", suggestion=hint)
        elif used.class_type in VIRTUAL:
            message = "editors have a node of their own by this name, and would take this one for it"
            self._report("unknown_class", node_id, message)
        else:
            return description
        return None

    def _sort_inputs(self, node_id: str, drawn: _Drawn) -> None:
        """Tell links from literals; a link has to lead somewhere to be drawn."""
        for name, given in drawn.used.inputs.items():
            match given:
                case [bool(), _] | [_, bool()]:
                    self._report_bad_link(node_id, name)
                case [str() | int() as source, int() as index]:
                    self._link(node_id, name, drawn, str(source), index)
                case [str() | int() as source, float() as index] if index.is_integer():
                    self._link(node_id, name, drawn, str(source), int(index))
                case list():
                    self._report_bad_link(node_id, name)
                case _:
                    drawn.literals[name] = cast("object", given)

    def _link(self, node_id: str, name: str, drawn: _Drawn, source: str, index: int) -> None:
        if source not in self.workflow:
            message = f"it links to node {source!r}, which is not in this workflow"
            self._report("missing_node", node_id, message, input=name)
        elif source in self.drawn and not 0 <= index < len(self.drawn[source].description.outputs):
            message = (
                f"it links to output {index} of node {source}, which has {len(self.drawn[source].description.outputs)}"
            )
            self._report("missing_output", node_id, message, input=name)
        else:
            drawn.links[name] = source, index

    def _report_bad_link(self, node_id: str, name: str) -> None:
        message = "a link is a node id and an output index"
        self._report(
            "bad_link", node_id, message, input=name, suggestion='a literal list is written {"__value__": […]}'
        )

    def _report(
        self, kind: ProblemKind, node_id: str, message: str, input: str | None = None, suggestion: str | None = None
    ) -> None:
        used = self.workflow[node_id]
        found = Problem(kind, message, node_id, used.title, used.class_type, input, suggestion=suggestion)
        self.problems.append(found)

    def _connected(self) -> tuple[list[dict[str, Any]], list[list[Any]]]:
        """The nodes with their slots, and the links between them."""
        needs = {node_id: drawn.needs for node_id, drawn in self.drawn.items()}
        order = in_order(needs)
        rank = {node_id: at for at, node_id in enumerate(order)}
        corners = positions(order, needs, {node_id: _size(drawn) for node_id, drawn in self.drawn.items()})
        nodes = {
            node_id: _node(drawn, rank[node_id], corners[node_id], _size(drawn))
            for node_id, drawn in self.drawn.items()
        }
        links: list[list[Any]] = []
        for node_id, drawn in self.drawn.items():
            for at, slot in enumerate(nodes[node_id]["inputs"]):
                if slot["name"] not in drawn.links:
                    continue
                source, index = drawn.links[slot["name"]]
                output = nodes[source]["outputs"][index]
                slot["link"] = len(links) + 1
                output["links"].append(slot["link"])
                links.append([slot["link"], self.drawn[source].id, index, drawn.id, at, output["type"]])
        return list(nodes.values()), links


def _node(drawn: _Drawn, rank: int, corner: Size, size: Size) -> dict[str, Any]:
    description = drawn.description
    widgets = {each.name: each for each in description.widgets}
    values = {name: shown(widgets[name], given) for name, given in drawn.literals.items() if name in widgets}
    kept = {name: given for name, given in drawn.literals.items() if name not in widgets}
    array = array_of(description, values)
    title = drawn.used.title
    return {
        "id": drawn.id,
        "type": description.name,
        "pos": list(corner),
        "size": list(size),
        "flags": {},
        "order": rank,
        "mode": 0,
        "inputs": [_slot(drawn, name) for name in _slots(drawn)],
        "outputs": [
            {"name": name, "type": kind, "links": [], "slot_index": at}
            for at, (name, kind) in enumerate(description.outputs)
        ],
        **({"title": title} if title is not None and title != description.title else {}),
        "properties": {S_AND_R: description.name, **({LITERALS: kept} if kept else {})},
        **({"widgets_values": array} if array else {}),
    }


def _slots(drawn: _Drawn) -> list[str]:
    """The names of the inputs that are drawn: whatever only a link can fill, and whatever else a link fills."""
    sockets = [each.name for each in drawn.description.sockets]
    return [*sockets, *(name for name in drawn.links if name not in sockets)]


def _slot(drawn: _Drawn, name: str) -> dict[str, Any]:
    declared = drawn.description.inputs.get(name)
    if declared is None:
        return {"name": name, "type": "*", "link": None}
    slot: dict[str, Any] = {"name": name, "type": declared.type, "link": None}
    if declared.is_widget:
        slot["widget"] = {"name": name}
    elif not declared.required:
        slot["shape"] = 7
    return slot


def shown(widget: DescribedInput, given: object) -> object:
    """A literal as its widget holds it."""
    wrapped = an_object(given)
    if len(wrapped) == 1 and isinstance(wrapped.get("__value__"), list):
        return wrapped["__value__"]
    return unspoken(given) if isinstance(given, str) and widget.options.get("dynamicPrompts") else given


def _size(drawn: _Drawn) -> Size:
    """About as large as an editor will make it."""
    description = drawn.description
    rows = max(len(_slots(drawn)), len(description.outputs))
    widgets = sum(TEXT if each.options.get("multiline") else WIDGET for each in description.widgets)
    pictured = description.shows or any(each.uploads for each in description.widgets)
    return WIDTH, HEADING + ROW * rows + widgets + (PICTURE if pictured else 0)


def _as_number(node_id: str) -> int | str:
    """Editors number their nodes; ids that are no such numbers stay text."""
    if not (node_id.isascii() and node_id.isdigit()) or len(node_id) > 16:
        return node_id
    number = int(node_id)
    return number if str(number) == node_id and number < LARGEST_NUMBER else node_id
