"""Expanding a composite: its function runs, the nodes it calls become steps of the graph."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import ValidationError

from graph.errors import WrongResult
from graph.folders import Folders
from graph.identity import content_identity
from graph.node import Input, Node
from graph.recording import Link, recording
from graph.resolve import Ref, Step, literal_problem
from graph.values import Value


@dataclass(frozen=True, slots=True)
class Constant:
    """A result that a composite knew without running anything."""

    value: object


@dataclass(frozen=True, slots=True)
class Expansion:
    """The steps a composite stands for, each after its sources, and where its outputs come from."""

    steps: tuple[Step, ...]
    results: tuple[Ref | Constant, ...]


def expand(step: Step, known: Mapping[str, object], folders: Folders) -> Expansion:
    """Run a composite's function.

    Args:
        known: its literals (also those that arrived by a link) and its `Known[...]` values, by input name; all other
            linked inputs are passed to the function as links.
    """
    calls = _Calls(step, known, folders)
    arguments = dict(known)
    for name, (source, output) in step.links.items():
        arguments.setdefault(name, Link(source, output))
    with recording(calls):
        result = step.node.function(**arguments)
    outputs = step.node.pack(result)
    if outputs is None:
        raise WrongResult(f"{len(step.node.outputs)} outputs", result)
    return Expansion(tuple(calls.steps), tuple(calls.origin(item) for item in outputs))


class _Calls:
    """Takes down what a composite calls, as steps named after it: `7.0`, `7.1` …"""

    def __init__(self, step: Step, known: Mapping[str, object], folders: Folders) -> None:
        self.step = step
        self.folders = folders
        self.steps: list[Step] = []
        # A known value that is passed on stays the link it came by, so that keys do not depend on having looked at it.
        self.origins: dict[int, Ref] = {
            id(known[name]): ref for name, ref in step.links.items() if name in known and isinstance(known[name], Value)
        }

    def add(self, node: Node[Any, Any], arguments: Mapping[str, object], title: str | None = None) -> tuple[Link, ...]:
        step_id = f"{self.step.id}.{len(self.steps)}"
        literals: dict[str, object] = {}
        links: dict[str, Ref] = {}
        files: dict[str, str] = {}
        for name, declared in node.inputs.items():
            given = arguments.get(name, declared.default)
            ref = self._ref(given)
            if ref is not None:
                links[name] = ref
            elif declared.value is None:
                literals[name] = self._literal(node, declared, given)
                self._note_file(declared, literals[name], files)
            elif given is not None:
                raise TypeError(
                    f"{self.step.node.name} passes {name!r} of {node.name} a {type(given).__name__} made on the spot; "
                    "a composite can only pass on its inputs, literals and outputs of the nodes it calls"
                )
        self.steps.append(Step(step_id, node, literals, links, files, title, parent=self.step.id))
        return tuple(Link(step_id, at) for at in range(len(node.outputs)))

    def origin(self, item: object) -> Ref | Constant:
        """Where an output of the composite comes from."""
        return self._ref(item) or Constant(item)

    def _ref(self, given: object) -> Ref | None:
        if isinstance(given, Link):
            return given.step, given.output
        return self.origins.get(id(given)) if isinstance(given, Value) else None

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
