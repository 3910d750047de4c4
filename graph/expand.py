"""Expanding a composite: its function runs, the nodes it calls become steps of the graph."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from inspect import Parameter, Signature
from typing import Any, cast

from pydantic import ValidationError

from graph.errors import WrongResult
from graph.folders import Folders
from graph.identities import Constant, Gathered, Result
from graph.identity import content_identity
from graph.lists import Blocked
from graph.mentions import possible_mentions, with_mentions
from graph.node import Input, Many, Node, Output, Whole, composite
from graph.recording import Link, owned, recording
from graph.resolve import Ref, Step, literal_problem
from graph.values import Service, Value


@dataclass(frozen=True, slots=True)
class Expansion:
    """The steps a composite stands for, each after its sources, and where its outputs come from."""

    steps: tuple[Step, ...]
    results: tuple[Result, ...]


def expand(
    step: Step,
    known: Mapping[str, object],
    services: Mapping[str, Service],
    folders: Folders,
    *,
    items: Mapping[str, Sequence[Ref]] | None = None,
    taken: Container[str] = (),
) -> Expansion:
    """Run a composite's function.

    Args:
        known: its literals (also those that arrived by a link) and its `Known[...]` values, by input name; all other
            linked inputs are passed to the function as links.
        items: for each `Many[...]` input that is linked, where its items are; they are passed as a list of links.
        taken: ids that its steps must not have.
    """
    items = items or {}
    calls = _Calls(step, known, folders, taken, items)
    arguments = {**known, **services}
    for name, refs in items.items():
        arguments.setdefault(name, [Link(source, output, calls) for source, output in refs])
    for name, (source, output) in step.links.items():
        arguments.setdefault(name, Link(source, output, calls))
    with recording(calls):
        result = step.node.function(**arguments)
    if isinstance(result, Blocked):
        return Expansion(tuple(calls.steps), (Constant(result),) * len(step.node.outputs))
    outputs = step.node.pack(result)
    if outputs is None or len(outputs) != len(step.node.outputs):
        raise WrongResult(f"{len(step.node.outputs)} outputs", result)
    results = tuple(
        calls.gathered(cast("list[object]", item))
        if output.many and isinstance(item, list | tuple)
        else calls.origin(item)
        for output, item in zip(step.node.outputs, outputs, strict=True)
    )
    expansion = Expansion(tuple(calls.steps), results)
    if step.node.sink and not any(inner.node.sink for inner in expansion.steps):
        raise TypeError(f"{step.node.name} is declared to show something, but it calls no node that does")
    return expansion


class _Calls:
    """Takes down what a composite calls, as steps named after it: `7.0`, `7.1` …"""

    def __init__(
        self,
        step: Step,
        known: Mapping[str, object],
        folders: Folders,
        taken: Container[str],
        items: Mapping[str, Sequence[Ref]],
    ) -> None:
        self.step = step
        self.folders = folders
        self.taken = taken
        self.steps: list[Step] = []
        self.outputs: dict[Ref, Output] = {}
        for name, ref in step.links.items():
            self._note_type(step.node.inputs[name], ref, known.get(name))
        # A known value that is passed on stays the link it came by, so that keys do not depend on having looked at it.
        self.origins: dict[int, Ref] = {
            id(known[name]): ref for name, ref in step.links.items() if name in known and isinstance(known[name], Value)
        }
        for name, refs in items.items():
            values = cast("list[object]", known.get(name, [None] * len(refs)))
            for ref, value in zip(refs, values, strict=True):
                self._note_type(step.node.inputs[name], ref, value)
                if isinstance(value, Value):
                    self.origins[id(value)] = ref

    def add(self, node: Node[Any, Any], arguments: Mapping[str, object], title: str | None = None) -> tuple[Link, ...]:
        if node.sink and not self.step.node.sink:
            raise TypeError(
                f"{self.step.node.name} calls {node.name}, which acts on the world, so it must itself be an output "
                f"node: declare that it returns {node.result.__name__}"
            )
        literals: dict[str, object] = {}
        links: dict[str, Ref] = {}
        files: dict[str, str] = {}
        for name, declared in node.inputs.items():
            given = arguments.get(name, declared.default)
            if declared.many and isinstance(given, list | tuple):
                given = self._listed(cast("Sequence[object]", given))
            ref = self._ref(given)
            if ref is not None:
                self._check_link(node, declared, self.outputs[ref])
                links[name] = ref
                self._note_mentions(name, possible_mentions(declared.literal, self.folders), files)
            elif declared.value is None:
                literals[name] = self._literal(node, declared, given)
                self._note_file(declared, literals[name], files)
                self._note_mentions(name, with_mentions(declared.literal, self.folders, literals[name]), files)
            elif given is not None:
                raise TypeError(
                    f"{self.step.node.name} passes {name!r} of {node.name} a {type(given).__name__} made on the spot; "
                    "a composite can only pass on its inputs, literals and outputs of the nodes it calls"
                )
        step_id = f"{self.step.id}.{len(self.steps)}"
        while step_id in self.taken:  # a document may use such ids too
            step_id += "'"
        self.steps.append(Step(step_id, node, literals, links, files, title, parent=self.step.id))
        self.outputs |= {(step_id, at): output for at, output in enumerate(node.outputs)}
        return tuple(Link(step_id, at, self) for at in range(len(node.outputs)))

    def origin(self, item: object) -> Ref | Constant:
        """Where an output of the composite comes from."""
        return self._ref(item) or Constant(item)

    def gathered(self, items: Sequence[object]) -> Gathered:
        """Where the items of a list come from."""
        return Gathered(tuple(self.origin(item) for item in items))

    def _listed(self, items: Sequence[object]) -> object:
        """A list as the output of a step, if there is anything among its items that is not at hand."""
        if all(self._ref(item) is None for item in items):
            return items
        (link,) = self.add(_gatherer(len(items)), {f"item_{at}": item for at, item in enumerate(items)})
        return link

    def _ref(self, given: object) -> Ref | None:
        if isinstance(given, Link):
            return owned(given, self)
        return self.origins.get(id(given)) if isinstance(given, Value) else None

    def _note_type(self, given: Input, ref: Ref, value: object) -> None:
        """What is known of the type of an input: its declaration, or what it turned out to be."""
        kind = type(value) if isinstance(value, Value) else given.value
        before = self.outputs.get(ref)
        if before is None or (before.value and kind and issubclass(kind, before.value)):
            self.outputs[ref] = Output(given.name, kind, kind.kind if kind else given.wire)

    def _check_link(self, node: Node[Any, Any], declared: Input, output: Output) -> None:
        if not declared.accepts(output):
            raise TypeError(
                f"{self.step.node.name} passes {declared.name!r} of {node.name} {output.wire} ({output.name}), "
                f"but it takes {declared.wire}"
            )

    def _literal(self, node: Node[Any, Any], declared: Input, given: object) -> object:
        literal = declared.literal
        assert literal is not None
        try:
            return literal.validate(given)
        except ValidationError as error:
            problem = literal_problem(
                literal, declared.name, given, error.errors(include_url=False, include_context=False)
            )
            raise ValueError(
                f"{self.step.node.name} calls {node.name} with {declared.name!r}: {problem.message}"
            ) from error

    def _note_file(self, declared: Input, value: object, files: dict[str, str]) -> None:
        source = declared.literal.source if declared.literal else None
        if source is not None:
            name = cast(str, value)
            files[declared.name] = f"{name}:{content_identity(source.locate(self.folders, name))}"

    def _note_mentions(self, name: str, identity: str | None, files: dict[str, str]) -> None:
        if identity is not None:
            files[name] = identity


@lru_cache(maxsize=64)
def _gatherer(count: int) -> Node[..., list[Any]]:
    """A composite that makes one list of so many inputs."""

    def gather(**items: Any) -> Many[Any]:
        return list(items.values())

    names = [f"item_{at}" for at in range(count)]
    parameters = [Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=Whole[Any]) for name in names]
    cast(Any, gather).__signature__ = Signature(parameters, return_annotation=Many[Any])
    gather.__annotations__ = dict.fromkeys(names, Whole[Any]) | {"return": Many[Any]}
    return composite("List")(gather)
