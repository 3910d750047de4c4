"""The editor's own document (LiteGraph JSON, versions 0.4 and 1): nodes, links and the definitions of subgraphs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, TypeVar, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from graph.problems import InvalidWorkflow, Problem
from workflows.editor.shapes import a_list, an_object, is_editor_document

INPUTS, OUTPUTS = "-10", "-20"
"""Inside a subgraph, links from its inputs and to its outputs come from and go to nodes of these ids."""
MUTED, BYPASSED = 2, 4
REROUTE, PRIMITIVE = "Reroute", "PrimitiveNode"
VIRTUAL = (REROUTE, PRIMITIVE, "Note", "MarkdownNote")
"""Nodes that exist in the editor alone."""
S_AND_R = "Node name for S&R"
"""The property that names a node in `%KSampler.seed%`."""


def _id(value: object) -> object:
    """Ids are numbers or text; they are compared as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("an id is a number or text")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _type(value: object) -> object:
    """Any type is `*`, `""` or 0; old files spell out the choices of a list."""
    return value if isinstance(value, str) and value else "COMBO" if isinstance(value, list) else "*"


def _or(default: object) -> BeforeValidator:
    return BeforeValidator(lambda value: default if value is None else value)


Id = Annotated[str, BeforeValidator(_id)]
NoId = Annotated[str | None, BeforeValidator(lambda value: None if value is None else _id(value))]
Type = Annotated[str, BeforeValidator(_type)]
R = TypeVar("R", bound="_Read")


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Slot(_Read):
    """An input or output of a node as it is drawn. Outputs go by their place, inputs by their name."""

    name: Annotated[str, _or("")] = ""
    type: Type = "*"
    link: NoId = None
    widget: Any = None

    @property
    def widget_name(self) -> str:
        """The name of the widget that this input stands beside; empty where there is none."""
        named = an_object(self.widget).get("name")
        return named if isinstance(named, str) else ""


class EditorLink(_Read):
    """A connection; what it leads to is told by the input that names it."""

    id: Id
    origin_id: Id
    origin_slot: int
    target_id: Id
    target_slot: int


class EditorNode(_Read):
    """A node as it is drawn."""

    id: Id
    type: str
    mode: Any = 0
    order: Any = 0
    title: Any = None
    inputs: Annotated[tuple[Slot, ...], _or(())] = ()
    outputs: Annotated[tuple[Slot, ...], _or(())] = ()
    widgets_values: Any = None
    properties: Any = None

    @property
    def muted(self) -> bool:
        return self.mode == MUTED

    @property
    def bypassed(self) -> bool:
        return self.mode == BYPASSED

    @property
    def rank(self) -> float:
        """Its place in the order in which the editor ran it last."""
        return self.order if isinstance(self.order, int | float) and self.order == self.order else 0

    def property(self, name: str) -> object:
        return an_object(self.properties).get(name)


def _links(links: object) -> object:
    """Arrays `[id, from, slot, to, slot, type]` or objects; where one was removed, null may be left."""
    if links is None:
        return ()
    if not isinstance(links, list):
        return links
    names = list(EditorLink.model_fields)
    return tuple(
        dict(zip(names, cast("list[object]", link), strict=False)) if isinstance(link, list) else link
        for link in cast("list[object]", links)
        if link is not None
    )


class _Boundary(_Read):
    name: Annotated[str, _or("")] = ""


class _Nodes(_Read):
    nodes: Annotated[tuple[EditorNode, ...], _or(())] = ()
    links: Annotated[tuple[EditorLink, ...], BeforeValidator(_links)] = ()


class _Definition(_Nodes):
    id: Id
    name: Annotated[str, _or("")] = ""
    inputs: Annotated[tuple[_Boundary, ...], _or(())] = ()
    outputs: Annotated[tuple[_Boundary, ...], _or(())] = ()


@dataclass(frozen=True)
class EditorGraph:
    """The nodes of a document or of a subgraph, and their links, by id."""

    nodes: Mapping[str, EditorNode] = field(default_factory=dict[str, EditorNode])
    links: Mapping[str, EditorLink] = field(default_factory=dict[str, EditorLink])

    @cached_property
    def origins(self) -> frozenset[str]:
        """The ids of all nodes that links come from."""
        return frozenset(link.origin_id for link in self.links.values())


@dataclass(frozen=True)
class Subgraph(EditorGraph):
    """The definition of a subgraph: a graph with named inputs; its outputs are links, by index."""

    id: str = ""
    name: str = ""
    inputs: tuple[str, ...] = ()
    outputs: Mapping[int, str] = field(default_factory=dict[int, str])

    @cached_property
    def behind_inputs(self) -> Mapping[tuple[str, str], int]:
        """The widgets inside that inputs lead to: (node id, widget's name) → index of the input."""
        found: dict[tuple[str, str], int] = {}
        for node in self.nodes.values():
            for slot in node.inputs:
                link = self.links.get(slot.link) if slot.link is not None and slot.widget_name else None
                if link is not None and link.origin_id == INPUTS and 0 <= link.origin_slot < len(self.inputs):
                    found[node.id, slot.widget_name] = link.origin_slot
        return found


@dataclass(frozen=True)
class EditorDocument:
    """A whole document."""

    root: EditorGraph
    subgraphs: Mapping[str, Subgraph]


def read_editor_document(document: object) -> EditorDocument:
    """Take an editor's JSON apart. Raises InvalidWorkflow with everything in it that has the wrong shape."""
    if not is_editor_document(document):
        message = "this is no document of the editor's, which is an object with a list of “nodes”"
        raise InvalidWorkflow([Problem("not_a_workflow", message)])
    problems: list[Problem] = []
    root = _validated(_Nodes, document, "", problems)
    graph = _graph(root, "", problems)
    subgraphs: dict[str, Subgraph] = {}
    for place, definition in _definitions(document):
        read = _validated(_Definition, definition, place, problems)
        if read is not None and read.id not in subgraphs:
            inner = _graph(read, f" of subgraph {read.name or read.id!r}", problems)
            outputs = {link.target_slot: link.id for link in inner.links.values() if link.target_id == OUTPUTS}
            inputs = tuple(each.name for each in read.inputs)
            subgraphs[read.id] = Subgraph(inner.nodes, inner.links, read.id, read.name, inputs, outputs)
    if problems:
        raise InvalidWorkflow(problems)
    return EditorDocument(graph, subgraphs)


def _definitions(document: object) -> Iterator[tuple[str, object]]:
    """Every definition of a subgraph, with its place; definitions may hold further ones."""
    waiting = [("", document)]
    while waiting:
        place, holder = waiting.pop()
        for at, each in enumerate(a_list(an_object(an_object(holder).get("definitions")).get("subgraphs"))):
            found = f"{place}definitions.subgraphs[{at}]"
            yield found, each
            waiting.append((f"{found}.", each))


def _validated(model: type[R], given: object, place: str, problems: list[Problem]) -> R | None:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        problems += [_shape_problem(given, detail, place) for detail in error.errors(include_url=False)]
        return None


def _graph(read: _Nodes | None, whose: str, problems: list[Problem]) -> EditorGraph:
    if read is None:
        return EditorGraph()
    nodes: dict[str, EditorNode] = {}
    for node in read.nodes:
        if node.id in nodes:
            problems.append(
                Problem(
                    "not_a_workflow",
                    f"two nodes{whose} have the id {node.id}: {nodes[node.id].type} and {node.type}",
                    node_id=node.id,
                    class_name=node.type,
                    suggestion="give one of them another id, and its links with it",
                )
            )
        nodes[node.id] = node
    return EditorGraph(nodes, {link.id: link for link in read.links})


def _shape_problem(given: object, detail: ErrorDetails, place: str) -> Problem:
    """What pydantic found wrong, in this project's words, with the id of the node where it is."""
    location = detail["loc"]
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    path = "".join([place, *parts]).removeprefix(".")
    if detail["type"] == "missing":
        message = f"“{path}” is missing"
    else:
        wanted = _WANTED.get(detail["type"], "a number or text")
        message = f"“{path}” should be {wanted}, found {_shown(detail['input'])}"
    return Problem("not_a_workflow", message, node_id=_node_id(given, location))


def _node_id(given: object, location: Sequence[int | str]) -> str | None:
    match location:
        case ("nodes", int(at), *_):
            found = an_object(a_list(an_object(given).get("nodes"))[at]).get("id")
            return str(found) if isinstance(found, int | str) else None
        case _:
            return None


_WANTED = {
    "model_type": "an object",
    "tuple_type": "a list",
    "string_type": "text",
    "string_unicode": "text without halves of letters",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "finite_number": "a whole number",
}


def _shown(value: object) -> str:
    match value:
        case list() | tuple():
            return "a list"
        case Mapping():
            return "an object"
        case _:
            text = json.dumps(value, ensure_ascii=False)
            return text if len(text) <= 60 else text[:57] + "…"
