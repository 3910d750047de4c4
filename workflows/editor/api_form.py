"""From an editor's document to API-format: what an editor does when somebody presses its button, done here."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from random import Random
from typing import Any, cast

from graph.problems import InvalidWorkflow, Problem, ProblemKind, nearest
from workflows.editor.descriptions import Description, Descriptions, NodeInfos
from workflows.editor.document import PRIMITIVE, S_AND_R, VIRTUAL, EditorNode, read_editor_document
from workflows.editor.layout import in_order
from workflows.editor.scopes import Placed, Scope, unfold
from workflows.editor.shapes import a_list, an_object
from workflows.editor.sources import Given, OutputOf, Removed, Sources, place
from workflows.editor.texts import file_prefix, spoken
from workflows.editor.widgets import named_values

ApiDocument = dict[str, dict[str, Any]]
LITERALS = "literals without a widget"
"""The property of a node that keeps what no widget of the editor holds; written by `to_editor`, read by `to_api`."""
MOST_SUGGESTIONS = 50
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True)
class Converted:
    """A document in API-format, and what a person should know of how it came about."""

    document: ApiDocument
    warnings: tuple[str, ...] = ()


def to_api(
    document: object, nodes: NodeInfos, *, random: Random | None = None, now: datetime | None = None
) -> Converted:
    """An editor's document (version 0.4 or 1) in API-format. Raises InvalidWorkflow with every problem found.

    Reroutes, primitive nodes and notes disappear, muted nodes are left out, bypassed ones hand on what fits, nodes of
    subgraphs get ids like `5:12`. A connection that cannot be followed counts as none, with a warning, as it does in
    an editor; one from a muted node takes its input away. A node of an unknown class that is connected to nothing
    is left out with a warning, as such are labels and the like that exist in somebody's editor alone.

    Args:
        nodes: what the nodes take and give, as `object_info` tells it.
        random: picks of `{red|blue}` in prompts.
        now: the time that `%date:…%` in a file's prefix tells.
    """
    return _Conversion(document, nodes).converted(random or Random(), now or datetime.now())


@dataclass
class _Used:
    """A node that will run."""

    scope: Scope
    node: EditorNode
    description: Description
    values: dict[str, Any]
    """What its widgets show."""
    links: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])
    removed: set[str] = field(default_factory=set[str])

    def __str__(self) -> str:
        return place(self.scope, self.node)


class _Conversion:
    def __init__(self, document: object, nodes: NodeInfos) -> None:
        self.placed = unfold(read_editor_document(document))
        self.descriptions = Descriptions(nodes)
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self.decoration: list[Problem] = []
        self.sources = Sources(self.problems)
        self.used: dict[str, _Used] = {}

    def converted(self, random: Random, now: datetime) -> Converted:
        for scope, node in self.placed:
            if node.type not in VIRTUAL and not node.muted and not node.bypassed and node.id not in scope.inner:
                self._use(scope, node)
        for used in self.used.values():
            self._connect(used)
        if self.used:
            self.warnings += [f"{problem}; it is connected to nothing and left out" for problem in self.decoration]
        elif not self.problems:
            message = "this workflow has no nodes that run" if self.placed else "this workflow has no nodes"
            self.problems += self.decoration or [Problem("not_a_workflow", message)]
        if self.problems:
            raise InvalidWorkflow(self.problems)
        order = in_order({node_id: {link[0] for link in used.links.values()} for node_id, used in self.used.items()})
        document = {node_id: self._entry(self.used[node_id], random, now) for node_id in order}
        return Converted(document, tuple(self.warnings))

    def _use(self, scope: Scope, node: EditorNode) -> None:
        node_id = scope.id(node.id)
        description = self.descriptions.get(node.type)
        if description is None:
            self._report_unknown(scope, node)
        elif node_id in self.used:
            message = f"two nodes have the id {node_id} once subgraphs are unfolded"
            self.problems.append(_problem("not_a_workflow", scope, node, message, "give one of them another id"))
        else:
            values = named_values(description, node.widgets_values)
            promoted = scope.widgets.get(node.id, {})
            values |= {each.name: promoted[each.name] for each in description.widgets if each.name in promoted}
            self.used[node_id] = _Used(scope, node, description, values)

    def _connect(self, used: _Used) -> None:
        """Find what is linked to each input."""
        for slot in used.node.inputs:
            if slot.link is None or not slot.name:
                continue
            found = self.sources.of(used.scope, slot.link)
            match found:
                case OutputOf(node_id, index):
                    used.links[slot.name] = [node_id, index]
                case Given(value):
                    used.values[slot.name] = value
                case Removed(why):
                    used.removed.add(slot.name)
                    declared = used.description.inputs.get(slot.name)
                    if declared is not None and declared.required:
                        self.warnings.append(f"{used}, input {slot.name!r}: {why}, so it is left out")
                case _ if found.why:
                    self.warnings.append(f"{used}, input {slot.name!r}: {found.why}; it counts as not connected")
                case _:
                    pass

    def _entry(self, used: _Used, random: Random, now: datetime) -> dict[str, Any]:
        sent = {
            name: self._sent(used, name, value, random, now)
            for name, value in used.values.items()
            if name not in used.removed and name not in used.links
        }
        inputs = {**sent, **an_object(used.node.property(LITERALS)), **used.links}
        title = used.node.title if isinstance(used.node.title, str) else used.description.title
        return {"class_type": used.description.name, "inputs": inputs, "_meta": {"title": title}}

    def _sent(self, used: _Used, name: str, value: object, random: Random, now: datetime) -> object:
        """A value as an editor sends it: texts filled in, lists in a wrapping that tells them from links."""
        if isinstance(value, list):
            return {"__value__": cast("list[object]", value)}
        if not isinstance(value, str):
            return value
        declared = used.description.inputs.get(name)
        if declared is not None and declared.options.get("dynamicPrompts"):
            value = spoken(value, random)
        return file_prefix(value, now, self._widget) if name == "filename_prefix" else value

    def _widget(self, node_name: str, widget: str) -> object:
        """A widget's value, for the name of a file."""
        named = self._by_name.get(node_name)
        return None if named is None else self._shown(*named).get(widget)

    @cached_property
    def _by_name(self) -> Mapping[str, Placed]:
        """The first node of each name for such uses, or else of that title; those that run come first."""
        placed = sorted(self.placed, key=lambda each: each[0].id(each[1].id) not in self.used)
        names = [(node.property(S_AND_R), (scope, node)) for scope, node in placed]
        titles = [(node.title, (scope, node)) for scope, node in placed]
        return {name: found for name, found in reversed([*names, *titles]) if isinstance(name, str)}

    def _shown(self, scope: Scope, node: EditorNode) -> Mapping[str, object]:
        used = self.used.get(scope.id(node.id))
        if used is not None:
            return used.values
        if node.type == PRIMITIVE and (values := a_list(node.widgets_values)):
            return {"value": values[0]}
        description = self.descriptions.get(node.type)
        return {} if description is None else named_values(description, node.widgets_values)

    def _report_unknown(self, scope: Scope, node: EditorNode) -> None:
        if node.type.startswith("workflow>"):
            message = "this is a group node, of a kind that subgraphs have replaced"
            hint = "in the editor, convert it to nodes or to a subgraph, and save again"
        elif _UUID.fullmatch(node.type):
            message = "this is a subgraph whose definition is not in the document"
            hint = "save the workflow again in the editor that has it"
        else:
            message = f"there is no node called {node.type!r}"
            few = len(self.problems) + len(self.decoration) < MOST_SUGGESTIONS
            hint = nearest(node.type, self.descriptions.names) if few else None
        alone = all(slot.link is None for slot in node.inputs) and node.id not in scope.graph.origins
        (self.decoration if alone else self.problems).append(_problem("unknown_class", scope, node, message, hint))


def _problem(kind: ProblemKind, scope: Scope, node: EditorNode, message: str, hint: str | None) -> Problem:
    title = node.title if isinstance(node.title, str) else None
    return Problem(kind, message, scope.id(node.id), title, node.type, suggestion=hint)
