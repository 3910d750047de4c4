"""Run a graph: what its targets need and the store lacks, each step once, releasing what is no longer needed."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from traceback import clear_frames
from typing import Any, cast

from pydantic import ValidationError

from graph.awaiting import Waiting
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
from graph.expand import Constant, Expansion, expand
from graph.folders import Folders
from graph.keys import Key, Origin, identities, key_of, origins_key
from graph.node import Node
from graph.recording import recording
from graph.resolve import Graph, Ref, Step, literal_problem
from graph.store import Outputs, Store
from graph.values import Service, Ui


@dataclass(frozen=True, slots=True)
class Result:
    """What a run made: the outputs of its targets, what they have to show, and which steps of the document failed.

    What a step inside a composite shows stands under that step's own id (`7.3`). Outputs are shared with the store and
    with other runs: they must not be changed in place.
    """

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


MOST_NESTED = 100
"""Composites inside composites; beyond this one surely calls itself."""


@dataclass(slots=True)
class _Composite:
    """A composite that was expanded: what has to be done before its end, and how far it is."""

    step: Step
    results: tuple[Ref | Constant, ...]
    needs: list[str]
    depth: int
    began: float
    ticks: int
    """How many of its steps count as progress."""
    done: int


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
    agenda: deque[Step | _Composite] = field(default_factory=deque[Step | _Composite])
    composites: dict[str, _Composite] = field(default_factory=dict[str, _Composite])
    origins: dict[Ref, Origin] = field(default_factory=dict[Ref, Origin])
    made: set[Key] = field(default_factory=set[Key])
    nameless: dict[str, Exception] = field(default_factory=dict[str, Exception])
    """Steps of which no key can be made, and why."""
    unavailable: dict[str, NodeError] = field(default_factory=dict[str, NodeError])
    """Steps that failed or need one that did, and the failure."""
    shown: dict[str, Ui] = field(default_factory=dict[str, Ui])
    failures: list[NodeError] = field(default_factory=list[NodeError])

    def run(self, graph: Graph) -> Result:
        began = time.perf_counter()
        status = "failed"
        self.services |= {Cancellation: self.cancellation, Folders: self.folders}
        self.identities = identities(self.services)
        try:
            with Waiting(self.cancellation) as self._waiting:
                self._identify(graph.steps)
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
        except (Cancelled, KeyboardInterrupt):
            status = "cancelled"
            raise
        finally:
            self.emit(RunFinished(status, _since(began)))

    def _identify(self, steps: Sequence[Step]) -> None:
        keys = self.keys
        for step in steps:
            try:
                keys[step.id] = key_of(step, keys, self.origins, self.identities)
            except Exception as error:
                keys[step.id] = None
                self.nameless[step.id] = error

    def _plan(self, steps: Sequence[Step], wanted: Iterable[str]) -> tuple[list[Step], list[Step]]:
        """The steps that have to run and those the store has, both in order. Counts the uses of every result."""
        uses = self.uses
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
        if step.node.composite:
            self._note_origins(step, cast("tuple[Origin | None, ...]", self.store.get(origins_key(key)) or ()))
        return True

    def _note_origins(self, step: Step, origins: tuple[Origin | None, ...]) -> None:
        self.origins |= {(step.id, at): origin for at, origin in enumerate(origins) if origin is not None}

    def _origin(self, result: Ref | Constant) -> Origin | None:
        if isinstance(result, Constant):
            return None
        key = self.keys[result[0]]
        return self.origins.get(result) or ((key, result[1]) if key is not None else None)

    def _advance(self, item: Step | _Composite) -> None:
        """Run a step, begin a composite, or end one."""
        ends = isinstance(item, _Composite)
        step = item.step if ends else item
        needs = item.needs if ends else [source for source, _ in item.links.values()]
        failure = self._failure_of(needs) if self.unavailable else None
        if failure is not None and not ends:
            self.unavailable[step.id] = failure
        else:
            try:
                if ends:
                    self._end(item, failure)
                elif step.id in self.nameless:
                    raise self.nameless[step.id]
                elif self.keys[step.id] in self.made and self._known(step):
                    self._reused(step)
                elif step.node.composite:
                    self._begin(step)
                else:
                    self._call(step)
            except Cancelled:
                raise
            except (Exception, SystemExit, asyncio.CancelledError) as error:
                self._failed(step, error)
        for source in needs:
            self._release(source)

    def _failure_of(self, needs: Iterable[str]) -> NodeError | None:
        return next((self.unavailable[source] for source in needs if source in self.unavailable), None)

    def _call(self, step: Step) -> None:
        emit, node = self.emit, step.node
        emit(NodeStarted(step.id, node.name, step.title, step.parent))
        began = time.perf_counter()
        arguments = self._arguments(step)
        for name, service in node.services.items():
            arguments[name] = self._service(service, step)
        returned = node.function(**arguments)
        if node.is_async:
            returned = self._waiting.result(returned)
        outputs = checked_outputs(node, returned)
        self._finish(step, outputs, began, cast(Ui, returned) if node.sink else None)

    def _begin(self, step: Step) -> None:
        """Put what a composite stands for on the agenda, and its end after that."""
        self.emit(NodeStarted(step.id, step.node.name, step.title, step.parent))
        began = time.perf_counter()
        depth = self.composites[step.parent].depth + 1 if step.parent in self.composites else 0
        if depth > MOST_NESTED:
            raise RecursionError(f"composites are nested more than {MOST_NESTED} deep; does one call itself?")
        expansion = self._expand(step)
        needs = expansion.needs
        needed, reused = self._plan(expansion.steps, needs)
        ticks = sum(inner.node.progress for inner in expansion.steps)
        done = ticks - sum(inner.node.progress for inner in (*needed, *reused))
        whole = _Composite(step, expansion.results, needs, depth, began, ticks, done)
        self.composites[step.id] = whole
        for inner in reused:
            self._reused(inner)
        self.agenda.appendleft(whole)
        self.agenda.extendleft(reversed(needed))

    def _expand(self, step: Step) -> Expansion:
        """Run a composite's function; it must be the same graph whenever it has the same key."""
        inputs = step.node.inputs
        known = {name: value for name, value in self._arguments(step).items() if inputs[name].known}
        services = {name: self._service(service, step) for name, service in step.node.services.items()}
        expansion = expand(step, known, services, self.folders, taken=self.keys)
        self._identify(expansion.steps)
        if self.keys[step.id] is not None and not step.node.sink:
            for inner in expansion.steps:
                reason = _unforeseen(step, inner, self.keys[inner.id])
                if reason and inner.id not in self.nameless:
                    raise TypeError(f"{step.node.name} is declared to depend on its inputs alone, but it {reason}")
        return expansion

    def _end(self, item: _Composite, failure: NodeError | None) -> None:
        del self.composites[item.step.id]
        if failure is not None:
            self._failed(item.step, failure)
            return
        outputs = tuple(
            result.value if isinstance(result, Constant) else self.values[result[0]][result[1]]
            for result in item.results
        )
        self._finish(item.step, checked(item.step.node, outputs), item.began)
        key = self.keys[item.step.id]
        if key is not None and not item.step.node.sink:
            origins = tuple(self._origin(result) for result in item.results)
            self._note_origins(item.step, origins)
            self.store.put(origins_key(key), origins, class_name=item.step.node.name, seconds=_since(item.began))

    def _finish(self, step: Step, outputs: Outputs, began: float, ui: Ui | None = None) -> None:
        node, key, seconds = step.node, self.keys[step.id], _since(began)
        if self.uses[step.id]:
            self.values[step.id] = outputs
        if key is not None and not node.sink:
            self.store.put(key, outputs, class_name=node.name, seconds=seconds)
            self.made.add(key)
        if ui is not None:
            self.shown[step.id] = ui
        self.emit(NodeFinished(step.id, node.name, step.title, step.parent, seconds, ui))
        self._tick(step)

    def _reused(self, step: Step) -> None:
        self.emit(NodeReused(step.id, step.node.name, step.title, step.parent))
        self._tick(step)

    def _tick(self, step: Step) -> None:
        """Let a finished step count for the composite it belongs to."""
        if step.parent is None or not step.node.progress:
            return
        composite = self.composites[step.parent]
        composite.done += 1
        whole = composite.step
        self.emit(NodeProgressed(whole.id, whole.node.name, whole.title, whole.parent, composite.done, composite.ticks))

    def _failed(self, step: Step, cause: BaseException) -> None:
        _let_go(cause)
        error = NodeError(step.id, step.node.name, step.title, cause)
        self.unavailable[step.id] = error
        if step.parent is None:
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
        for name in step.node.mutable_inputs:
            if name in arguments:
                arguments[name] = deepcopy(arguments[name])
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


def _since(began: float) -> float:
    return time.perf_counter() - began


def checked_outputs(node: Node[Any, Any], returned: object) -> Outputs:
    """What a node returned as a tuple of outputs. Raises WrongResult if it is not what the node declares."""
    if node.sink:
        if not isinstance(returned, Ui):
            raise WrongResult(f"a {cast(type, node.result).__name__}", returned)
        return ()
    outputs = node.pack(returned)
    if outputs is None or len(outputs) != len(node.outputs):
        raise WrongResult(f"{len(node.outputs)} outputs", returned)
    return checked(node, outputs)


def checked(node: Node[Any, Any], outputs: Outputs) -> Outputs:
    """The outputs, if each is of the type that the node declares. Raises WrongResult."""
    for output, value in zip(node.outputs, outputs, strict=True):
        if value is None or not isinstance(value, output.value or _PLAIN.get(output.wire, object)):
            raise WrongResult(f"{output.wire} as output {output.name!r}", value)
    return outputs


_PLAIN: Mapping[str, Any] = {"INT": int, "FLOAT": int | float, "STRING": str, "BOOLEAN": bool}


def _unforeseen(step: Step, inner: Step, key: Key | None) -> str | None:
    """What a step inside a composite depends on that the composite's key does not tell."""
    if key is None and not inner.node.sink:
        return f"calls {inner.node.name}, whose result may differ from run to run: declare it impure"
    unknown = set(inner.files.values()).difference(step.files.values())
    if unknown:
        names = ", ".join(name for name, file in inner.files.items() if file in unknown)
        return f"chooses a file itself ({names} of {inner.node.name}): take the name as an input, or declare it impure"
    return None


def _let_go(error: BaseException | None) -> None:
    """Free what the frames of a failed call hold (tensors, say); the traceback keeps its lines."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
