"""Run a graph: what its targets need and the store lacks, each step once, releasing what is no longer needed."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import ValidationError

from graph.cancellation import Cancellation, Progress
from graph.errors import Cancelled, NodeError, RunFailed, WrongInput, WrongResult
from graph.events import (
    Emit,
    NodeFailed,
    NodeFinished,
    NodeProgressed,
    NodeReused,
    NodeStarted,
    RunFinished,
    RunStarted,
    ignore,
)
from graph.expand import Constant, expand
from graph.folders import Folders
from graph.keys import Key, key_of
from graph.node import Node
from graph.recording import recording
from graph.resolve import Graph, Ref, Step, literal_problem
from graph.store import Outputs, Store
from graph.values import Service, Ui


@dataclass(frozen=True, slots=True)
class Result:
    """What a run made: the outputs of its targets, what they have to show, and which steps failed."""

    outputs: Mapping[str, Outputs]
    shown: Mapping[str, Ui]
    failures: tuple[NodeError, ...] = ()

    def checked(self) -> "Result":
        """Itself, or RunFailed if any step failed."""
        if self.failures:
            raise RunFailed(self.failures)
        return self


def run(
    graph: Graph,
    store: Store,
    *,
    folders: Folders,
    services: Mapping[type[Service], Service] | None = None,
    emit: Emit = ignore,
    cancellation: Cancellation | None = None,
) -> Result:
    """Run a graph. Raises Cancelled; failures of nodes are in the result, beside everything that did not need them.

    Args:
        services: what is injected into nodes, by type; progress and cancellation are added.
        emit: is told everything that happens, in the calling thread.
    """
    active = _Run(store, folders, dict(services or {}), emit, cancellation or Cancellation())
    with recording(None):
        return active.run(graph)


@dataclass(slots=True)
class _Closing:
    """The end of a composite: its outputs are those of the steps it was expanded into."""

    step: Step
    key: Key | None
    results: tuple[Ref | Constant, ...]
    started: float


@dataclass(slots=True)
class _Ticks:
    """How many of a composite's steps that count as progress are done."""

    step: Step
    total: int
    done: int = 0


@dataclass
class _Run:
    store: Store
    folders: Folders
    services: dict[type[Service], Service]
    emit: Emit
    cancellation: Cancellation
    keys: dict[str, Key | None] = field(default_factory=dict[str, Key | None])
    values: dict[str, Outputs] = field(default_factory=dict[str, Outputs])
    uses: Counter[str] = field(default_factory=Counter[str])
    agenda: deque[Step | _Closing] = field(default_factory=deque[Step | _Closing])
    ticks: dict[str, _Ticks] = field(default_factory=dict[str, _Ticks])
    made: set[Key] = field(default_factory=set[Key])
    unavailable: set[str] = field(default_factory=set[str])
    shown: dict[str, Ui] = field(default_factory=dict[str, Ui])
    failures: list[NodeError] = field(default_factory=list[NodeError])

    def run(self, graph: Graph) -> Result:
        began = time.perf_counter()
        status = "failed"
        self.services |= {Cancellation: self.cancellation, Folders: self.folders}
        try:
            with asyncio.Runner() as self._runner:
                needed, reused = self._plan(graph.steps, graph.targets)
                self.emit(RunStarted(tuple(step.id for step in needed), tuple(step.id for step in reused)))
                for step in reused:
                    self.emit(NodeReused(step.id, step.node.name, step.title, step.parent))
                self.agenda.extend(needed)
                while self.agenda:
                    self.cancellation.check()
                    self._advance(self.agenda.popleft())
            outputs = {target: self.values[target] for target in graph.targets if target in self.values}
            status = "failed" if self.failures else "ok"
            return Result(outputs, self.shown, tuple(self.failures))
        except Cancelled:
            status = "cancelled"
            raise
        finally:
            self.emit(RunFinished(status, time.perf_counter() - began))

    def _plan(self, steps: Sequence[Step], wanted: Sequence[str]) -> tuple[list[Step], list[Step]]:
        """The steps that have to run and those the store has, both in order. Counts the uses of every result."""
        keys, uses = self.keys, self.uses
        for step in steps:
            keys[step.id] = key_of(step, keys)
        uses.update(wanted)
        needed: list[Step] = []
        reused: list[Step] = []
        for step in reversed(steps):
            if not uses[step.id]:
                continue
            if self._known(step):
                reused.append(step)
                continue
            needed.append(step)
            for source, _ in step.links.values():
                uses[source] += 1
        needed.reverse()
        reused.reverse()
        return needed, reused

    def _known(self, step: Step) -> bool:
        key = self.keys[step.id]
        if key is None or step.node.sink:
            return False
        outputs = self.store.get(key)
        if outputs is None:
            return False
        self.values[step.id] = outputs
        return True

    def _advance(self, item: Step | _Closing) -> None:
        step = item.step if isinstance(item, _Closing) else item
        if isinstance(item, _Closing):
            needs = [result[0] for result in item.results if not isinstance(result, Constant)]
        else:
            needs = [source for source, _ in step.links.values()]
        if self.unavailable and not self.unavailable.isdisjoint(needs):
            self.unavailable.add(step.id)
        else:
            try:
                if isinstance(item, _Closing):
                    self._close(item)
                elif self.keys[step.id] in self.made and self._known(step):
                    self._reused(step)
                elif step.node.composite:
                    self._expand(step)
                else:
                    self._call(step)
            except Cancelled:
                raise
            except (Exception, SystemExit) as error:
                self._failed(step, error)
        for source in needs:
            self._release(source)

    def _call(self, step: Step) -> None:
        emit, node = self.emit, step.node
        emit(NodeStarted(step.id, node.name, step.title, step.parent))
        began = time.perf_counter()
        arguments = self._arguments(step)
        for name, service in node.services.items():
            arguments[name] = self._service(service, step)
        returned = node.function(**arguments)
        if node.is_async:
            returned = self._runner.run(returned)
        outputs = checked_outputs(node, returned)
        self._finish(step, outputs, began, cast(Ui, returned) if node.sink else None)

    def _expand(self, step: Step) -> None:
        self.emit(NodeStarted(step.id, step.node.name, step.title, step.parent))
        began = time.perf_counter()
        inputs = step.node.inputs
        known = {name: value for name, value in self._arguments(step).items() if inputs[name].known}
        expansion = expand(step, known, self.folders)
        results = expansion.results
        wanted = [result[0] for result in results if not isinstance(result, Constant)]
        needed, reused = self._plan(expansion.steps, wanted)
        self.ticks[step.id] = _Ticks(step, sum(inner.node.progress for inner in (*needed, *reused)))
        for inner in reused:
            self._reused(inner)
        self.agenda.appendleft(_Closing(step, self.keys[step.id], results, began))
        self.agenda.extendleft(reversed(needed))

    def _close(self, item: _Closing) -> None:
        outputs = tuple(
            result.value if isinstance(result, Constant) else self.values[result[0]][result[1]]
            for result in item.results
        )
        self._finish(item.step, outputs, item.started)

    def _finish(self, step: Step, outputs: Outputs, began: float, ui: Ui | None = None) -> None:
        node, key = step.node, self.keys[step.id]
        if self.uses[step.id]:
            self.values[step.id] = outputs
        if key is not None and not node.sink:
            self.store.put(key, outputs)
            self.made.add(key)
        if ui is not None:
            self.shown[step.id] = ui
        self.emit(NodeFinished(step.id, node.name, step.title, step.parent, time.perf_counter() - began, ui))
        self._tick(step)

    def _reused(self, step: Step) -> None:
        self.emit(NodeReused(step.id, step.node.name, step.title, step.parent))
        self._tick(step)

    def _tick(self, step: Step) -> None:
        """Let a finished step count for the composite it belongs to."""
        if step.parent is None or not step.node.progress:
            return
        ticks = self.ticks[step.parent]
        ticks.done += 1
        whole = ticks.step
        self.emit(NodeProgressed(whole.id, whole.node.name, whole.title, whole.parent, ticks.done, ticks.total))

    def _failed(self, step: Step, cause: BaseException) -> None:
        error = NodeError(step.id, step.node.name, step.title, cause)
        self.unavailable.add(step.id)
        self.failures.append(error)
        self.emit(NodeFailed(step.id, step.node.name, step.title, step.parent, error))

    def _release(self, source: str) -> None:
        self.uses[source] -= 1
        if self.uses[source] <= 0:
            self.values.pop(source, None)

    def _arguments(self, step: Step) -> dict[str, Any]:
        arguments = dict(step.literals)
        inputs = step.node.inputs
        for name, (source, output) in step.links.items():
            value = self.values[source][output]
            literal = inputs[name].literal
            if literal is not None:
                try:
                    value = literal.validate(value)
                except ValidationError as error:
                    details = error.errors(include_url=False, include_context=False)
                    raise WrongInput(name, literal_problem(literal, name, value, details).message) from error
            arguments[name] = value
        return arguments

    def _service(self, kind: type[Service], step: Step) -> Service:
        if kind is Progress:
            return Progress(
                lambda value, maximum, preview: self.emit(
                    NodeProgressed(step.id, step.node.name, step.title, step.parent, value, maximum, preview)
                ),
                self.cancellation,
            )
        service = self.services.get(kind)
        if service is None:
            raise LookupError(f"the node needs the service {kind.__name__}, which this engine does not have")
        return service


def checked_outputs(node: Node[Any, Any], returned: object) -> Outputs:
    """What a node returned as a tuple of outputs. Raises WrongResult if it is not what the node declares."""
    if node.sink:
        if not isinstance(returned, Ui):
            raise WrongResult(f"a {cast(type, node.result).__name__}", returned)
        return ()
    outputs = node.pack(returned)
    if outputs is None or len(outputs) != len(node.outputs):
        raise WrongResult(f"{len(node.outputs)} outputs", returned)
    for output, value in zip(node.outputs, outputs, strict=True):
        if value is None or (output.value is not None and not isinstance(value, output.value)):
            raise WrongResult(f"{output.wire} as output {output.name!r}", value)
    return outputs
