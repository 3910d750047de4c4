"""From a workflow document to a graph that can run: every problem at once, in linear time, without recursion."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from graph.catalogue import AnyNode, Catalogue
from graph.collector import collector_paused
from graph.folders import Folders
from graph.identity import content_identity
from graph.literals import LiteralType
from graph.loops import Loops, is_end
from graph.mentions import possible_mentions, with_mentions
from graph.node import Input
from graph.problems import InvalidWorkflow, Problem, ProblemKind, describe_step, listed, nearest
from graph.workflow import Workflow

Ref = tuple[str, int]
"""An output of a step: (step id, output index)."""


@dataclass(slots=True)
class Step:
    """One use of a node: its literals validated and complete, its links known to exist and to fit."""

    id: str
    node: AnyNode
    literals: Mapping[str, object]
    links: Mapping[str, Ref]
    files: Mapping[str, str]
    title: str | None = None
    parent: str | None = None

    def __str__(self) -> str:
        return describe_step(self.id, self.node.name, self.title)


@dataclass(frozen=True, slots=True)
class Graph:
    """Steps in an order in which each comes after what it needs, and the ids of those that are asked for."""

    steps: tuple[Step, ...]
    targets: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def resolve(workflow: Workflow, catalogue: Catalogue, folders: Folders, targets: Sequence[str] | None = None) -> Graph:
    """Check a workflow against the catalogue. Raises InvalidWorkflow with every problem found.

    Args:
        targets: ids of the nodes whose results are wanted; by default every output node. Only what they need is
            checked closely, as only that will run.
    """
    with collector_paused():
        return _Resolver(workflow, catalogue, folders).graph(targets)


MOST_SUGGESTIONS = 50
"""Looking for the nearest name takes time; a document that is wrong everywhere needs no more of them than this."""
MOST_CYCLES = 10
DEEPEST_LITERAL = 100


class _Resolver:
    def __init__(self, workflow: Workflow, catalogue: Catalogue, folders: Folders) -> None:
        self.workflow = workflow
        self.catalogue = catalogue
        self.folders = folders
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self.file_names: dict[int, Sequence[object]] = {}
        self.suggestions: dict[tuple[str, int], str | None] = {}
        self.cycles: list[frozenset[str]] = []
        self.nodes: dict[str, AnyNode | None] = {}
        self.links: dict[str, dict[str, Ref | None]] = {}
        """Of each node that was looked at, what its inputs link to; None: a link that cannot be read."""

    def graph(self, targets: Sequence[str] | None) -> Graph:
        classes = {name: self.catalogue.get(name) for name in {used.class_type for used in self.workflow.values()}}
        for node_id, used in self.workflow.items():
            node = self.nodes[node_id] = classes[used.class_type]
            if node is None:
                self._report(
                    "unknown_class",
                    node_id,
                    f"there is no node called {_shown(used.class_type)}",
                    suggestion=self._nearest(used.class_type, self.catalogue),
                )
        wanted = self._targets(targets)
        order = self._order([*wanted, *self._ends_around(wanted)])
        steps = [step for node_id in order if (step := self._step(node_id)) is not None]
        if not self.problems and any(is_end(step) for step in steps):
            for end, problem in Loops(steps).problems.items():
                self._report("bad_link", end, problem, input="loop")
        if self.problems:
            raise InvalidWorkflow(self.problems)
        return Graph(tuple(steps), tuple(wanted), tuple(self.warnings))

    def _targets(self, targets: Sequence[str] | None) -> list[str]:
        if targets is None:
            found = [node_id for node_id, node in self.nodes.items() if node is not None and node.sink]
            if not found and not self.problems:
                self.problems.append(
                    Problem(
                        "no_output",
                        "this workflow has no output node, so nothing would be kept",
                        suggestion="add a node that saves or shows something, such as SaveImage or PreviewImage",
                    )
                )
            return found
        for node_id in targets:
            if node_id not in self.workflow:
                self.problems.append(
                    Problem(
                        "unknown_target",
                        f"there is no node {node_id!r} to run",
                        suggestion=self._nearest(node_id, self.workflow),
                    )
                )
        return [node_id for node_id in dict.fromkeys(targets) if node_id in self.workflow]

    def _ends_around(self, wanted: Sequence[str]) -> list[str]:
        """The ends of the loops in which wanted nodes act on the world: what lies in a loop is done in every turn."""
        ends: dict[str, str] = {}
        for node_id, node in self.nodes.items():
            if node is not None and node.loop in ("each", "while"):
                given = self.workflow[node_id].inputs.get("loop")
                link = _link(cast("list[object]", given)) if isinstance(given, list) else None
                if link is not None:
                    ends[link[0]] = node_id
        found: list[str] = []
        roots = [node_id for node_id in wanted if (node := self.nodes[node_id]) is not None and node.sink]
        while ends and roots:
            needed = self._order(roots)
            roots = [ends.pop(start) for start in needed if start in ends]
            found += roots
        return found

    def _order(self, wanted: Sequence[str]) -> list[str]:
        """What the wanted nodes need, each after its sources. A cycle is reported once, with all its nodes."""
        order: list[str] = []
        done = -1
        depth: dict[str, int] = {}
        for start in wanted:
            path: list[tuple[str, Iterator[str]]] = []
            if start not in depth:
                depth[start] = 0
                path.append((start, self._sources(start)))
            while path:
                node_id, sources = path[-1]
                following = next(sources, None)
                if following is None:
                    path.pop()
                    depth[node_id] = done
                    order.append(node_id)
                elif following not in depth:
                    depth[following] = len(path)
                    path.append((following, self._sources(following)))
                elif depth[following] != done and len(self.cycles) < MOST_CYCLES:
                    self._report_cycle([entry for entry, _ in path[depth[following] :]])
        return order

    def _sources(self, node_id: str) -> Iterator[str]:
        """The nodes this one links to, in the order of the document; links that lead nowhere are left out."""
        node, workflow = self.nodes[node_id], self.workflow
        links: dict[str, Ref | None] = {}
        for name, given in workflow[node_id].inputs.items():
            if isinstance(given, list) and (node is None or name in node.inputs):
                links[name] = _link(cast("list[object]", given))
        self.links[node_id] = links
        return iter([link[0] for link in links.values() if link is not None and link[0] in workflow])

    def _report_cycle(self, path: list[str]) -> None:
        nodes = frozenset(path)
        if nodes in self.cycles:  # two links that close the same cycle
            return
        self.cycles.append(nodes)
        around = [*path, path[0]]
        names = " → ".join(f"{node_id} ({self.workflow[node_id].class_type})" for node_id in reversed(around))
        self._report("cycle", path[0], f"its result depends on itself: {names}", suggestion="remove one of these links")

    def _nearest(self, word: str, known: Iterable[object]) -> str | None:
        asked = word, id(known)
        if asked not in self.suggestions and len(self.suggestions) < MOST_SUGGESTIONS:
            self.suggestions[asked] = nearest(word, known)
        return self.suggestions.get(asked)

    def _step(self, node_id: str) -> Step | None:
        used, node = self.workflow[node_id], self.nodes[node_id]
        if node is None:
            return None
        read = self.links[node_id]
        literals: dict[str, object] = {}
        links: dict[str, Ref] = {}
        files: dict[str, str] = {}
        given = used.inputs
        for name, declared in node.inputs.items():
            if name not in given:
                if declared.required:
                    self._report(
                        "missing_input",
                        node_id,
                        f"this input is required and missing; {_wanted(declared)}",
                        input=name,
                        expected=declared.wire,
                    )
                elif declared.value is None:
                    literals[name] = declared.default
                    self._note_file(node_id, name, declared, files, declared.default)
                continue
            value = given[name]
            if name in read:
                self._note_mentions(name, possible_mentions(declared.literal, self.folders), files)
                link = self._checked_link(node_id, name, declared, read[name], value)
                if link is not None:
                    links[name] = link
            elif declared.value is not None:
                if value is not None or declared.required:
                    self._report(
                        "wrong_type",
                        node_id,
                        f"expected a link to a node that gives {declared.wire}, found {_shown(value)}",
                        input=name,
                        expected=declared.wire,
                        found=_shown(value),
                    )
            else:
                self._check_literal(node_id, name, declared, value, literals, files)
        if len(given) > len(literals) + len(links):
            self._warn_undeclared(node_id, node, given)
        return Step(node_id, node, literals, links, files, used.title)

    def _warn_undeclared(self, node_id: str, node: AnyNode, given: Mapping[str, object]) -> None:
        for name in given:
            if name not in node.inputs:
                hint = nearest(name, [known for known in node.inputs if known not in given])
                found = f"{self._place(node_id)} has no input {name!r}; it is ignored"
                self.warnings.append(f"{found} ({hint})" if hint else found)

    def _checked_link(self, node_id: str, name: str, declared: Input, link: Ref | None, given: object) -> Ref | None:
        if link is None:
            self._report(
                "bad_link",
                node_id,
                f"a link is a node id and an output index, found {_shown(given)}",
                input=name,
                expected='["node id", 0]',
                found=_shown(given),
                suggestion='a literal list is written {"__value__": […]}',
            )
            return None
        source_id, index = link
        if source_id not in self.nodes:
            self._report(
                "missing_node",
                node_id,
                f"it links to node {source_id!r}, which is not in this workflow",
                input=name,
                found=source_id,
                suggestion=self._nearest(source_id, self.workflow),
            )
            return None
        source_node = self.nodes[source_id]
        if source_node is None:
            return None
        if not 0 <= index < len(source_node.outputs):
            self._report(
                "missing_output",
                node_id,
                f"it links to output {index} of {self._place(source_id)}, {_outputs(source_node)}",
                input=name,
                found=str(index),
            )
            return None
        output = source_node.outputs[index]
        if not declared.accepts(output):
            fitting = [
                f"output {at} is {other.wire}"
                for at, other in enumerate(source_node.outputs)
                if declared.accepts(other)
            ]
            self._report(
                "type_mismatch",
                node_id,
                f"expected {declared.wire}, but output {index} ({output.name}) of {self._place(source_id)} "
                f"gives {output.wire}",
                input=name,
                expected=declared.wire,
                found=output.wire,
                suggestion="; ".join(fitting) or None,
            )
            return None
        return link

    def _place(self, node_id: str) -> str:
        used = self.workflow[node_id]
        return describe_step(node_id, used.class_type, used.title)

    def _check_literal(
        self,
        node_id: str,
        name: str,
        declared: Input,
        value: object,
        literals: dict[str, object],
        files: dict[str, str],
    ) -> None:
        literal = declared.literal
        assert literal is not None
        if literal.takes_as_it_is(value):
            literals[name] = value
            self._note_mentions(name, with_mentions(literal, self.folders, value), files)
            return
        if isinstance(value, dict):
            wrapped = cast("dict[str, object]", value)
            value = wrapped.get("__value__", wrapped)
        if _deeper(value, DEEPEST_LITERAL):
            self._report("wrong_type", node_id, f"this literal is nested more than {DEEPEST_LITERAL} deep", input=name)
            return
        try:
            literals[name] = literal.validate(value)
        except ValidationError as error:
            problem = literal_problem(literal, name, value, error.errors(include_url=False, include_context=False))
            self._report(
                problem.kind,
                node_id,
                problem.message,
                input=name,
                expected=problem.expected,
                found=problem.found,
                suggestion=problem.suggestion,
            )
            return
        self._note_file(node_id, name, declared, files, literals[name])
        self._note_mentions(name, with_mentions(literal, self.folders, literals[name]), files)

    def _note_mentions(self, name: str, identity: str | None, files: dict[str, str]) -> None:
        if identity is not None:
            files[name] = identity

    def _note_file(self, node_id: str, name: str, declared: Input, files: dict[str, str], value: object) -> None:
        """Let the content of a named file stand in the key beside its name."""
        source = declared.literal.source if declared.literal else None
        if source is None or not isinstance(value, str):
            return
        try:
            files[name] = f"{value}:{content_identity(source.locate(self.folders, value))}"
        except (OSError, ValueError) as error:
            if id(source) not in self.file_names:
                self.file_names[id(source)] = source.names(self.folders)
            names = self.file_names[id(source)]
            hint = self._nearest(value, names) or (
                f"there is: {listed(names)}" if names else "there are no such files yet"
            )
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self._report(
                "missing_file", node_id, f"{value!r} cannot be used: {reason}", input=name, found=value, suggestion=hint
            )

    def _report(self, kind: ProblemKind, node_id: str, message: str, **details: str | None) -> None:
        used = self.workflow[node_id]
        found = Problem(kind, message, node_id=node_id, title=used.title, class_name=used.class_type)
        self.problems.append(replace(found, **cast("dict[str, Any]", details)))


def literal_problem(literal: LiteralType, name: str, value: object, errors: list[ErrorDetails]) -> Problem:
    """What pydantic found wrong with a literal, in this project's words."""
    found = _shown(value)
    first = errors[0]["type"]
    if literal.choices:
        return Problem(
            "not_a_choice",
            f"{found} is not one of the choices",
            input=name,
            found=found,
            expected=listed(literal.choices),
            suggestion=nearest(value, literal.choices) or f"choices: {listed(literal.choices)}",
        )
    if first in ("greater_than_equal", "greater_than", "less_than_equal", "less_than"):
        return Problem(
            "out_of_range",
            f"{found} is out of range; it must be {literal.limits}",
            input=name,
            expected=str(literal.limits),
            found=found,
        )
    expected = _LITERAL_NAMES.get(literal.wire, literal.wire)
    detail = "; ".join(error["msg"] for error in errors)
    return Problem(
        "wrong_type", f"expected {expected}, found {found}: {detail}", input=name, expected=literal.wire, found=found
    )


_LITERAL_NAMES = {
    "INT": "a whole number",
    "FLOAT": "a number",
    "STRING": "text",
    "BOOLEAN": "true or false",
    "COMBO": "the name of a file",
}


def _deeper(value: object, levels: int) -> bool:
    """Whether lists and objects are nested in more levels than this."""
    layer = [value]
    for _ in range(levels + 1):
        layer = [inner for outer in layer for inner in _items(outer)]
        if not layer:
            return False
    return True


def _items(value: object) -> Iterable[object]:
    match value:
        case dict():
            return cast("dict[str, object]", value).values()
        case list():
            return cast("list[object]", value)
        case _:
            return ()


def _link(given: list[object]) -> Ref | None:
    if len(given) == 2:  # as it should be; matching takes longer
        source, index = given
        if type(source) is str and type(index) is int:
            return source, index
    match given:
        case [bool(), _] | [_, bool()]:
            return None
        case [str() | int() as source, int() as index]:
            return str(source), index
        case [str() | int() as source, float() as index] if index.is_integer():
            return str(source), int(index)
        case _:
            return None


def _outputs(node: AnyNode) -> str:
    if not node.outputs:
        return "which has no outputs"
    return "which has " + ", ".join(f"{at}: {output.name}" for at, output in enumerate(node.outputs))


def _wanted(declared: Input) -> str:
    if declared.value is not None:
        return f"it takes a link to a node that gives {declared.wire}"
    return f"it takes {_LITERAL_NAMES.get(declared.wire, declared.wire)}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
