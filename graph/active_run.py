"""One run of a graph: what is asked for, what it waits for, and what is to be done next.

Everything here is bookkeeping and happens under the run's lock, on whichever thread; nodes are called outside of it. A
step is *wanted* when its outputs are asked for: by a target, by a step that will run, by a composite that turned out
to pass them on. It then goes through the phases below, as far as it has to: a step that the store has wants nothing.
"""

import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from threading import Lock
from traceback import clear_frames
from typing import Any, cast

from graph.awaiting import Awaited
from graph.calling import checked, fitting
from graph.cancellation import Cancellation
from graph.errors import Cancelled, NodeError
from graph.events import (
    Emit,
    Event,
    NodeFailed,
    NodeFinished,
    NodeProgressed,
    NodeReused,
    NodeSkipped,
    NodeStarted,
    RunFinished,
    RunStarted,
    ignore,
)
from graph.expand import expand
from graph.explain import Reason
from graph.folders import Folders
from graph.identities import Constant, Gathered, Identities, Result, Revealed, sources_of
from graph.identity import digest, encode
from graph.kept import fetch, record_of
from graph.keys import Key, identities, origins_key
from graph.lanes import Rank
from graph.lists import Blocked, Items
from graph.loops import Loop
from graph.resolve import Graph, Ref, Step
from graph.store import Claim, Outputs, Store
from graph.values import Service, Ui

MOST_NESTED = 1000
"""Composites inside composites; beyond this one surely calls itself."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run is to be made.

    Args:
        priority: of several runs in one executor those with the highest go first, from the next step on.
        node_timeout: seconds after which a node that has not returned counts as failed; None: never.
        check_inputs: fingerprint the inputs of every node before and after it runs, to find one that changes them.
        previews: whether nodes are to draw pictures of where they are.
        reasons: why steps have to run, by id, to be told when they start.
    """

    priority: int = 0
    node_timeout: float | None = None
    check_inputs: bool = False
    previews: bool = False
    reasons: Mapping[str, tuple[Reason, ...]] = field(default_factory=dict[str, "tuple[Reason, ...]"])


class Phase(IntEnum):
    """How far a step is."""

    NAME = 0
    """Its key is being found out."""
    LOOK_UP = 1
    """It may be in the store."""
    TWIN = 2
    """Another step with the same key is being made."""
    INPUTS = 3
    """What it needs is being made."""
    READY = 4
    """It waits for its lane, or runs."""
    EXPANDED = 5
    """What it stands for is known, and nobody has asked for its outputs yet."""
    RESULTS = 6
    """The steps its outputs come from are being made."""
    DONE = 7


@dataclass(slots=True, eq=False)
class Task:
    """A step on its way."""

    step: Step
    rank: Rank
    queue: "ActiveRun"
    lane: str
    phase: Phase
    parent: "Task | None"
    depth: int = 0
    wanted: bool = False
    taken: list[str] = field(default_factory=list[str])
    """What is kept for it until it is done."""
    needs: tuple[str, ...] = ()
    waiting: int = 0
    """How many of its needs are not there yet."""
    told: bool = False
    """Whether its start has been told."""
    began: float = 0.0
    results: tuple[Result, ...] = ()
    sinks: tuple[str, ...] = ()
    """Steps inside it that act on the world."""
    ticks: int = 0
    """How many steps inside it count as progress, and how many of them are still to be done."""
    open_ticks: int = 0
    loop: Loop | None = None
    turns: "_While | None" = None
    preview: Any = None
    key: Key | None = None
    """By which other runs may wait for it, once it is ready."""
    claim: Claim | None = None
    awaited: Awaited | None = None
    abandoned: bool = False


@dataclass(slots=True)
class _While:
    """A loop that goes on while its condition holds: what it carries, and how far it is."""

    loop: Loop
    carried: list[Ref]
    count: int = 0
    """How many turns have begun."""
    most: int = 0
    ends: Mapping[str, Ref] = field(default_factory=dict[str, Ref])
    sinks: list[str] = field(default_factory=list[str])
    tested: bool = False
    """Whether the condition of this turn is known."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of calling a node.

    Args:
        contents: what its outputs are, if what follows goes by their content.
        reused: it was made elsewhere.
    """

    outputs: Outputs = ()
    ui: Ui | None = None
    error: BaseException | None = None
    seconds: float = 0.0
    contents: tuple[Revealed, ...] | None = None
    reused: bool = False


class ActiveRun:
    """The state of one run. What is public takes its lock."""

    def __init__(
        self,
        serial: int,
        store: Store,
        folders: Folders,
        services: Mapping[type[Service], Service],
        emit: Emit,
        cancellation: Cancellation,
        options: RunOptions,
    ) -> None:
        self.serial = serial
        self.priority = options.priority
        self.options = options
        self.store = store
        self.folders = folders
        self.cancellation = cancellation
        self.services: Mapping[type[Service], Service] = {
            **services,
            Cancellation: cancellation,
            Folders: folders,
        }
        self.stopping: BaseException | None = None
        """Why nothing more is started."""
        self.values: dict[str, Outputs] = {}
        """Outputs of steps that are done, for as long as somebody will take them."""
        self.shown: dict[str, Ui] = {}
        self.failures: list[NodeError] = []
        self.running: dict[Task, float] = {}
        """Steps whose node is being called, and since when."""
        self.parked: list[Task] = []
        """Steps that another process is making."""
        self._lock = Lock()
        self._emit = emit
        self._watched = emit is not ignore
        self._began = time.perf_counter()
        self._active = 0
        """Steps that are ready or running."""
        self._ready: list[Task] = []
        """Steps that became ready and are in no lane yet."""
        self._ids = Identities(identities(self.services))
        self._tasks: dict[str, Task] = {}
        self._settled: set[str] = set()
        self._unavailable: dict[str, NodeError] = {}
        """Steps that failed or need one that did, and the failure."""
        self._places: dict[str, tuple[Task | None, int]] = {}
        """The composite each step belongs to, and its place there."""
        self._uses: Counter[str] = Counter()
        self._held: set[str] = set()
        """Steps that nobody wants yet but somebody may: what they need is kept."""
        self._drops: list[str] = []
        self._waiters: dict[str, list[Task]] = {}
        self._by_key: dict[Key, str] = {}
        self._agenda: deque[Task] = deque()
        self._listy: set[str] = set()
        """Steps that may give lists."""
        self._items: dict[Ref, list[Ref]] = {}
        self._scopes: dict[str, Sequence[Step]] = {}
        self._special = False
        """Whether any list or blocked value has come up."""
        self._found_first: list[Task] | None = []
        """Steps that were found before the run was announced."""
        self._untold: list[Event] = []
        """What happened before that."""

    # The course of the run.

    def begin(self, graph: Graph) -> None:
        """Ask for the targets of a graph."""
        with self._lock:
            try:
                self._add(graph.steps, None)
                for target in self._targets(graph):
                    self._take(target)
                    self._want(target)
                self._settle()
            finally:
                self._announce(graph)

    def tell_end(self, status: str) -> None:
        """Say that the run is over."""
        with self._lock:
            self._emit(RunFinished(status, time.perf_counter() - self._began))

    def stop(self, why: BaseException) -> None:
        """Start nothing more. May be called again; the first reason counts."""
        with self._lock:
            self._stop(why)

    def start(self, task: Task) -> bool:
        """Say that a step begins; False if it must not."""
        with self._lock:
            if self.stopping is not None:
                self._active -= 1
                return False
            self.running[task] = self._tell_start(task)
            return self.stopping is None or self._retreat(task)

    def complete(self, task: Task, outcome: Outcome) -> list[Task]:
        """Take in what came of a step. Returns the steps that are ready by that."""
        with self._lock:
            if task.abandoned:
                return []
            self.running.pop(task, None)
            try:
                self._take_in(task, outcome)
                self._settle()
            except BaseException as error:  # of a store, say: the run ends with it, where nobody would hear of it
                self._stop(error)
            self._active -= 1  # last: whoever looks whether the run is over does so without the lock
            return self._take_ready()

    def abandon(self, task: Task, error: BaseException) -> list[Task] | None:
        """Count a running step as failed, whatever becomes of it. None if it has ended by itself."""
        with self._lock:
            if self.running.pop(task, None) is None:
                return None
            task.abandoned = True
            self._fail(task, error)
            self._settle()
            self._active -= 1
            return self._take_ready()

    def dismiss(self, tasks: Sequence[Task]) -> None:
        """Count steps that were ready as not to be run."""
        with self._lock:
            self._active -= len(tasks)

    def progress(self, task: Task, value: float, maximum: float, preview: Any) -> None:
        """Say how far a running step is."""
        with self._lock:
            step = task.step
            self._tell(NodeProgressed(step.id, step.node.name, step.title, step.parent, value, maximum, preview))

    def ready(self) -> list[Task]:
        """The steps that became ready since the last time."""
        with self._lock:
            return self._take_ready()

    @property
    def over(self) -> bool:
        """Whether nothing more can happen."""
        return not self._active

    def stuck(self, targets: Iterable[str]) -> list[str]:
        """Of the targets, those that are neither made nor have failed, though nothing is left to run."""
        return [target for target in targets if target in self._tasks and target not in self._settled]

    def _take_ready(self) -> list[Task]:
        ready, self._ready = self._ready, []
        return ready

    def _retreat(self, task: Task) -> bool:
        del self.running[task]
        self._active -= 1
        return False

    def _stop(self, why: BaseException) -> None:
        if self.stopping is None:
            self.stopping = why
            self._active -= len(self._ready)
            self._ready.clear()
            self._agenda.clear()
            for task in self.running:
                if task.awaited is not None:
                    task.awaited.cancel()

    def _targets(self, graph: Graph) -> list[str]:
        """What has to be made: in place of outputs inside a loop, the end of that loop."""
        inside: dict[str, str] = {}
        for step in graph.steps:
            if step.node.loop in ("each", "while"):
                with suppress(ValueError):  # which will be said when its turn comes
                    inside |= {inner.id: step.id for inner in Loop(step, graph.steps).between if inner.node.sink}
        return list(dict.fromkeys(inside.get(target, target) for target in graph.targets))

    def _announce(self, graph: Graph) -> None:
        reused, self._found_first = sorted(self._found_first or [], key=lambda task: task.rank), None
        found = {task.step.id for task in reused}
        needed: list[str] = []
        reached = set(graph.targets)
        for step in reversed(graph.steps):
            if step.id in reached and step.id not in found:
                needed.append(step.id)
                for source, _ in step.links.values():
                    reached.add(source)
        at_hand = tuple(task.step.id for task in reused if task.parent is None)
        self._tell(RunStarted(tuple(reversed(needed)), at_hand))
        for task in reused:
            self._tell_reused(task.step)
        for event in self._untold:
            self._tell(event)

    # Steps, and who wants them.

    def _add(self, steps: Sequence[Step], parent: Task | None, first: int = 0) -> None:
        """Take in the steps of the document, or those that a composite stands for."""
        if parent is not None and parent.depth >= MOST_NESTED:
            raise RecursionError(f"composites are nested more than {MOST_NESTED} deep; does one call itself?")
        self._ids.add(steps)
        places, listy = self._places, self._listy
        for at, step in enumerate(steps, first):
            places[step.id] = parent, at
            if step.node.gives_lists or (listy and any(source in listy for source, _ in step.links.values())):
                listy.add(step.id)
            if step.node.loop is not None:
                self._scopes[step.id] = steps

    def _task(self, step_id: str) -> Task:
        task = self._tasks.get(step_id)
        if task is None:
            step = self._ids.steps[step_id]
            parent, at = self._places[step_id]
            rank, depth = ((at,), 0) if parent is None else ((*parent.rank, at), parent.depth + 1)
            phase = Phase.LOOK_UP if step_id in self._ids.final or step.node.sink else Phase.NAME
            task = self._tasks[step_id] = Task(step, rank, self, step.node.lane, phase, parent, depth)
        return task

    def _want(self, step_id: str) -> None:
        if step_id in self._settled:
            return
        task = self._task(step_id)
        if not task.wanted:
            task.wanted = True
            if task.phase is Phase.NAME or task.step.node.opaque:
                self._keep_inputs(task)
            self._agenda.append(task)

    def _reveal(self, step_ids: Iterable[str]) -> None:
        """Have opaque steps looked into."""
        for step_id in step_ids:
            if step_id not in self._tasks:
                self._agenda.append(self._task(step_id))

    def _keep_inputs(self, task: Task) -> None:
        """Keep what a step may come to need, for it is not yet known what that is."""
        if not task.taken:
            task.taken = [source for source, _ in task.step.links.values()]
            for source in task.taken:
                self._take(source)

    def _take(self, step_id: str) -> None:
        """Keep the outputs of a step, as soon as there are any, until they are dropped."""
        self._uses[step_id] += 1
        stack = [step_id]
        while stack:
            at = stack.pop()
            if at in self._settled or at in self._held or ((task := self._tasks.get(at)) and task.wanted):
                continue
            self._held.add(at)
            for source, _ in self._ids.steps[at].links.values():
                self._uses[source] += 1
                stack.append(source)

    def _drop(self, step_id: str) -> None:
        stack = [step_id]
        uses = self._uses
        while stack:
            at = stack.pop()
            uses[at] -= 1
            if uses[at] <= 0:
                del uses[at]
                self.values.pop(at, None)
                if at in self._held and not ((task := self._tasks.get(at)) and task.wanted):
                    self._held.discard(at)
                    stack += [source for source, _ in self._ids.steps[at].links.values()]

    # From phase to phase.

    def _settle(self) -> None:
        """Go on with whatever can go on."""
        agenda, tasks = self._agenda, self._tasks
        while True:
            for step_id in self._ids.take_fresh():
                task = tasks.get(step_id)
                if task is not None and task.phase is Phase.NAME and step_id in self._ids.final:
                    agenda.append(task)
            if not agenda:
                break
            while agenda:
                task = agenda.popleft()
                try:
                    self._go_on(task)
                except Exception as error:
                    self._fail(task, error)
        while self._drops:
            self._drop(self._drops.pop())

    def _go_on(self, task: Task) -> None:
        if task.phase is Phase.NAME:
            step_id = task.step.id
            if step_id not in self._ids.final:
                self._reveal(self._ids.ask(step_id))
                if step_id not in self._ids.final:
                    return
            task.phase = Phase.LOOK_UP
        if task.phase is Phase.LOOK_UP and not self._looked_up(task):
            self._ask_inputs(task)
        if task.phase is Phase.TWIN:
            if not task.waiting:
                self._take_from_twin(task)
        elif task.phase is Phase.INPUTS:
            if not task.waiting:
                self._proceed(task)
        elif task.phase is Phase.EXPANDED:
            if task.wanted:
                self._want_results(task)
        elif task.phase is Phase.RESULTS and not task.waiting:
            if task.turns is not None:
                self._next_turn(task, task.turns)
            else:
                self._end(task)

    def _wait(self, task: Task, needs: Iterable[str]) -> None:
        task.needs = tuple(dict.fromkeys(needs))
        task.waiting = 0
        for source in task.needs:
            self._want(source)
            if source not in self._settled:
                self._waiters.setdefault(source, []).append(task)
                task.waiting += 1

    def _looked_up(self, task: Task) -> bool:
        """Whether there is nothing to be done for a step, or nothing for now."""
        step, node = task.step, task.step.node
        key = None if node.sink else self._ids.final.get(step.id)
        if key is not None and node.opaque and not self._ids.is_open(step.id):
            record = record_of(self.store, key)
            if record is not None:
                self._ids.reveal(step.id, record)
        if not task.wanted:
            if node.composite and key is not None:
                twin = self._by_key.setdefault(key, step.id)
                if twin != step.id and self._ids.is_open(twin):
                    self._ids.reveal(step.id, self._names(twin, len(node.outputs)))
            if self._ids.is_open(step.id):
                return True
            if node.composite:
                self._keep_inputs(task)
            else:  # of any other kind nothing is known until it has run
                self._want(step.id)
            return False
        if key is None or step.id in self._ids.nameless:
            return False
        twin = self._by_key.setdefault(key, step.id)
        if twin != step.id and twin not in self._unavailable:
            if twin not in self._settled:
                self._uses[twin] += 1
                task.taken.append(twin)
                self._wait(task, [twin])
                task.phase = Phase.TWIN
                return True
            if twin in self.values:
                self._finish(task, self.values[twin], reused=True)
                return True
        record = None
        if node.opaque or step.id in self._listy:
            record = record_of(self.store, key)
        outputs = fetch(self.store, key, record)
        if outputs is None:
            return False
        if record is not None:
            self._ids.reveal(step.id, record)
        self._finish(task, outputs, reused=True)
        return True

    def _take_from_twin(self, task: Task) -> None:
        (twin,) = task.needs
        failure = self._unavailable.get(twin)
        if failure is not None:
            self._fail(task, failure.__cause__ or failure)
            return
        step = task.step
        if step.node.opaque:
            self._ids.reveal(step.id, self._names(twin, len(step.node.outputs)))
        self._finish(task, self.values[twin], reused=True)

    def _names(self, step_id: str, count: int) -> list[Revealed]:
        return [self._ids.place((step_id, at)) for at in range(count)]

    def _ask_inputs(self, task: Task) -> None:
        """Want what a step needs before it can run."""
        step, node = task.step, task.step.node
        task.phase = Phase.INPUTS
        if task.parent is not None and node.progress and task.wanted:
            task.parent.open_ticks += 1
        if node.loop in ("each", "while"):
            task.loop = Loop(step, self._scopes[step.id])
            items = task.loop.start.links.get("items") if node.loop == "each" else None
            needs = [items[0]] if items else []
        elif node.composite:
            needs = [source for name, (source, _) in step.links.items() if self._is_known(step, name, source)]
        else:
            needs = [source for source, _ in step.links.values()]
            if not task.taken:
                task.taken = needs
                for source in needs:
                    self._uses[source] += 1
        self._wait(task, needs)

    def _is_known(self, step: Step, name: str, source: str) -> bool:
        """Whether a composite must have an input before it is expanded."""
        declared = step.node.inputs[name]
        return declared.known or declared.many or (source in self._listy and not declared.whole)

    def _proceed(self, task: Task) -> None:
        """Everything that was needed is there."""
        step, node = task.step, task.step.node
        failure = self._failure(task.needs)
        if failure is not None:
            self._give_up(task, failure)
            return
        if step.id in self._ids.nameless:
            raise self._ids.nameless[step.id]
        if task.loop is not None:
            self._begin_loop(task, task.loop)
            return
        if self._special:
            blocked = self._blocked(step)
            if blocked is not None:
                self._skip(task, blocked)
                return
            if self._lists(step):
                self._map(task)
                return
        if node.composite:
            self._expand(task)
            return
        task.phase = Phase.READY
        task.key = None if node.sink else self._ids.final[step.id]
        self._active += 1
        self._ready.append(task)

    def _failure(self, needs: Iterable[str]) -> NodeError | None:
        if not self._unavailable:
            return None
        return next((self._unavailable[source] for source in needs if source in self._unavailable), None)

    # Lists and blocked values.

    def _came(self, step: Step) -> dict[str, object]:
        """What has come by the links of a step so far, by input."""
        return {
            name: self.values[source][output] for name, (source, output) in step.links.items() if source in self.values
        }

    def _blocked(self, step: Step) -> Blocked | None:
        for name, value in self._came(step).items():
            if step.node.composite and not self._is_known(step, name, step.links[name][0]):
                continue
            if isinstance(value, Blocked):
                return value
            if isinstance(value, Items) and step.node.inputs[name].many:
                found = next((item for item in value.values if isinstance(item, Blocked)), None)
                if found is not None:
                    return found
        return None

    def _skip(self, task: Task, blocked: Blocked) -> None:
        step = task.step
        self._tell(NodeSkipped(step.id, step.node.name, step.title, step.parent, blocked.message))
        outputs = (Blocked(),) * len(step.node.outputs)
        if step.node.opaque:
            self._ids.reveal(step.id, [Revealed(None)] * len(outputs))
        self._set(task, outputs)
        self._close(task)

    def _lists(self, step: Step) -> dict[str, Items]:
        """The lists among what came to a step, of which it takes the items one by one."""
        inputs = step.node.inputs
        return {
            name: value
            for name, value in self._came(step).items()
            if isinstance(value, Items) and not inputs[name].many and not inputs[name].whole
        }

    def _map(self, task: Task) -> None:
        """Put one step for each item in place of a step that takes items and was given lists.

        Shorter lists repeat their last item; if one is empty there is nothing to do, and the outputs are empty lists.
        """
        step = task.step
        refs = {name: self._item_refs(step.links[name]) for name in self._lists(step)}
        lengths = [len(items) for items in refs.values()]
        count = max(lengths) if min(lengths) else 0
        parts = tuple(
            Step(
                self._free_id(f"{step.id}.{at}"),
                step.node,
                step.literals,
                {**step.links, **{name: items[min(at, len(items) - 1)] for name, items in refs.items()}},
                step.files,
                step.title,
                parent=step.id,
            )
            for at in range(count)
        )
        results = tuple(Gathered(tuple((part.id, at) for part in parts)) for at in range(len(step.node.outputs)))
        self._unfold(task, parts, results)

    def _item_refs(self, ref: Ref) -> list[Ref]:
        """The items of a list as values of their own."""
        value = self.values[ref[0]][ref[1]]
        items = value.values if isinstance(value, Items) else (value,)
        if not isinstance(value, Items):
            return [ref]
        refs = self._items.get(ref)
        if refs is None:
            refs = self._items[ref] = [(self._free_id(f"{ref[0]}[{ref[1]}][{at}]"), 0) for at in range(len(items))]
            named = self._ids.place(ref).items
            whole = self._ids.of(ref)
            for at, (name, _) in enumerate(refs):
                identity = named[at].identity if named else whole and (digest(b"item", encode((*whole, at))), 0)
                self._ids.add_value(name, identity)
                self._settled.add(name)
        for (name, _), item in zip(refs, items, strict=True):
            self.values[name] = (item,)
            self._uses[name] += 1
            self._drops.append(name)  # whoever needs it takes it before this is done
        return refs

    def _new_value(self, name: str, value: object) -> Ref:
        """A value that is no step's output, under an id of its own."""
        name = self._free_id(name)
        self._ids.add_value(name, (digest(b"literal", encode(value)), 0))
        self._settled.add(name)
        self.values[name] = (value,)
        self._uses[name] += 1
        self._drops.append(name)
        return name, 0

    def _free_id(self, name: str) -> str:
        while name in self._ids.static:
            name += "'"
        return name

    # Composites.

    def _expand(self, task: Task) -> None:
        """Run a composite's function; it must be the same graph whenever it has the same key."""
        step, node = task.step, task.step.node
        known = dict(step.literals)
        items: dict[str, list[Ref]] = {}
        for name, (source, output) in step.links.items():
            declared = node.inputs[name]
            if declared.many:
                items[name] = self._item_refs((source, output))
            if declared.known:
                known[name] = fitting(declared, self.values[source][output])
        services = {name: self._service(kind) for name, kind in node.services.items()}
        expansion = expand(step, known, services, self.folders, items=items, taken=self._ids.static)
        self._unfold(task, expansion.steps, expansion.results)

    def _service(self, kind: type[Service]) -> Service:
        service = self.services.get(kind)
        if service is None:
            raise LookupError(f"the node needs the service {kind.__name__}, which this engine does not have")
        return service

    def _unfold(self, task: Task, steps: tuple[Step, ...], results: tuple[Result, ...]) -> None:
        """Put steps in the place of a step."""
        step, node = task.step, task.step.node
        self._add(steps, task)
        self._check_inner(task, steps)
        task.results = results
        task.sinks = tuple(inner.id for inner in steps if inner.node.sink)
        task.ticks = sum(inner.node.progress for inner in steps)
        task.phase = Phase.EXPANDED
        if not node.sink and node.opaque and not node.cutoff and not self._ids.is_open(step.id):
            self._reveal(self._ids.ask_results(step.id, results))
        if task.wanted:
            self._want_results(task)

    def _check_inner(self, task: Task, steps: Sequence[Step]) -> None:
        step, static = task.step, self._ids.static
        if not step.node.composite or static[step.id] is None or step.node.sink:
            return
        for inner in steps:
            reason = _unforeseen(step, inner, static[inner.id])
            if reason and inner.id not in self._ids.nameless:
                raise TypeError(f"{step.node.name} is declared to depend on its inputs alone, but it {reason}")
        around: Task | None = task
        inside = {static[inner.id] for inner in steps if inner.node.composite}
        while around is not None:
            if around.step.node.composite and static[around.step.id] in inside:
                raise RecursionError(f"{around.step} expands into itself, with the very same inputs")
            around = around.parent

    def _want_results(self, task: Task) -> None:
        """Ask for what the outputs of a composite come from, and for what it does to the world."""
        self._pass_on(task, [*(source for source, _ in sources_of(task.results)), *task.sinks])

    def _pass_on(self, task: Task, needs: list[str], kept: Sequence[str] = ()) -> None:
        """Have a task need other steps than before, and keep some that it may need later."""
        taken = [*needs, *kept]
        for source in taken:
            self._take(source)
        self._drops += task.taken
        task.taken = taken
        task.phase = Phase.RESULTS
        self._wait(task, needs)
        if not task.waiting:
            self._agenda.append(task)

    def _end(self, task: Task) -> None:
        """Everything a composite needed is there: its outputs are."""
        step, node = task.step, task.step.node
        failure = self._failure(task.needs)
        if failure is not None:
            self._give_up(task, failure)
            return
        outputs: list[object] = []
        names: list[Revealed] = []
        for at, result in enumerate(task.results):
            value, name = self._made(step, at, result)
            outputs.append(value)
            names.append(name)
        if node.loop is None:  # whose outputs may be left empty
            checked(node, tuple(outputs), lists=step.id in self._listy)
        self._tell_start(task)
        self._ids.reveal(step.id, names)
        self._remember(task, tuple(outputs), names)
        self._finish(task, tuple(outputs))

    def _remember(self, task: Task, outputs: Outputs, names: Sequence[Revealed]) -> None:
        """Keep what a composite turned out to be; its outputs themselves only where no entry has them."""
        key, node = self._ids.static[task.step.id], task.step.node
        if not node.composite and not node.loop:
            key = self._ids.final[task.step.id]
        if key is None or node.sink or any(_nameless(name) for name in names):
            return
        seconds = time.perf_counter() - task.began
        if not all(_placed(name) for name in names):
            self.store.put(key, outputs, class_name=node.name, seconds=seconds)
        self.store.put(origins_key(key), tuple(names), class_name=node.name, seconds=seconds)

    def _made(self, step: Step, at: int, result: Result) -> tuple[object, Revealed]:
        """An output of a composite, and what it is."""
        own = self._ids.of((step.id, at)) if self._ids.is_open(step.id) else None
        if own is None and not isinstance(result, tuple) and (key := self._ids.static[step.id]) is not None:
            own = key, at
        if isinstance(result, Constant):
            return result.value, Revealed(own)
        if isinstance(result, tuple):
            return self.values[result[0]][result[1]], self._ids.place(result)
        values: list[object] = []
        names: list[Revealed] = []
        for source in result.sources:
            if isinstance(source, Constant):
                values.append(source.value)
                names.append(Revealed(None))
                continue
            value, name = self.values[source[0]][source[1]], self._ids.place(source)
            if isinstance(value, Items):
                values += value.values
                names += name.items or [Revealed(None)] * len(value.values)
            else:
                values.append(value)
                names.append(name)
        if own is None or any(name.identity is None or not _placed(name) for name in names):
            return Items(tuple(values)), Revealed(own)
        return Items(tuple(values)), Revealed(own, items=tuple(names))

    # Loops.

    def _begin_loop(self, task: Task, loop: Loop) -> None:
        """Unfold a loop over items, whose turns are known; begin one that ends when its condition does."""
        step, start = task.step, loop.start
        self._tell_start(task)
        if step.node.loop == "while":
            carried = [self._given(start, name, f"{step.id}[{name}]") for name in _carried(step)]
            self._turn(task, _While(loop, carried))
            return
        items = self._start_items(step, start)
        carried = [self._given(start, name, f"{step.id}[{name}]") for name in _carried(step)]
        count = self._new_value(f"{step.id}[count]", len(items))
        steps: list[Step] = []
        results: list[Ref | Constant] = []
        for at, item in enumerate(items):
            name = f"{step.id}.{at}"
            turn = loop.turn(name, [item, self._new_value(f"{name}[index]", at), count, *carried])
            steps += turn.steps
            results.append(turn.ends.get("result") or Constant(step.literals.get("result")))
            carried = [turn.ends.get(name, ref) for name, ref in zip(_carried(step), carried, strict=True)]
        self._unfold(task, tuple(steps), (Gathered(tuple(results)), *carried))
        task.ticks = task.open_ticks = 0

    def _start_items(self, step: Step, start: Step) -> list[Ref]:
        link = start.links.get("items")
        if link is not None:
            return self._item_refs(link)
        given = cast("list[object]", start.literals.get("items") or [])
        return [self._new_value(f"{step.id}[items][{at}]", item) for at, item in enumerate(given)]

    def _given(self, start: Step, name: str, new_id: str) -> Ref:
        return start.links.get(name) or self._new_value(new_id, start.literals.get(name))

    def _turn(self, task: Task, turns: "_While") -> None:
        """Begin a turn: find out whether it is to be made."""
        name = f"{task.step.id}.{turns.count}"
        turn = turns.loop.turn(name, [self._new_value(f"{name}[turn]", turns.count), *turns.carried])
        self._add(turn.steps, task, first=turns.count * (len(turn.steps) + 1))
        turns.ends = turn.ends
        turns.sinks = [inner.id for inner in turn.steps if inner.node.sink]
        turns.tested = False
        turns.count += 1
        task.turns = turns
        condition = turn.ends.get("condition")
        following = [turn.ends[name][0] for name in _carried(task.step) if name in turn.ends]
        kept = [ref[0] for ref in turns.carried]
        self._pass_on(task, [condition[0]] if condition else [], [*kept, *following, *turns.sinks])

    def _next_turn(self, task: Task, turns: "_While") -> None:
        """The condition of a turn is known, or the turn has been made."""
        step = task.step
        failure = self._failure(task.needs)
        if failure is not None:
            self._give_up(task, failure)
            return
        if turns.tested:
            self._tell_progress(task, turns.count, turns.most)
            self._turn(task, turns)
            return
        turns.tested = True
        condition = turns.ends.get("condition")
        value = self.values[condition[0]][condition[1]] if condition else step.literals["condition"]
        if isinstance(value, Blocked) or not fitting(step.node.inputs["condition"], value):
            task.turns = None
            task.results = (*turns.carried, self._new_value(f"{step.id}[turns]", turns.count - 1))
            self._pass_on(task, [source for source, _ in sources_of(task.results)])
            return
        turns.most = cast(int, step.literals["most_turns"])
        if turns.count > turns.most:
            raise RuntimeError(f"its condition still holds after {turns.most} turns; raise most_turns if that is meant")
        turns.carried = [turns.ends.get(name, ref) for name, ref in zip(_carried(step), turns.carried, strict=True)]
        self._pass_on(task, [*(ref[0] for ref in turns.carried), *turns.sinks])

    # What came of a step.

    def _take_in(self, task: Task, outcome: Outcome) -> None:
        step, node, key = task.step, task.step.node, task.key
        if outcome.error is not None:
            if isinstance(outcome.error, Cancelled):
                self._stop(outcome.error)
            else:
                self._fail(task, outcome.error)
            return
        if key is not None and not outcome.reused:
            self.store.put(key, outcome.outputs, class_name=node.name, seconds=outcome.seconds)
            if outcome.contents is not None:
                self.store.put(origins_key(key), outcome.contents, class_name=node.name, seconds=outcome.seconds)
        if outcome.contents is not None:
            self._ids.reveal(step.id, outcome.contents)
        if outcome.ui is not None:
            self.shown[step.id] = outcome.ui
        self._finish(task, outcome.outputs, outcome.reused, outcome.ui, outcome.seconds)

    def _finish(
        self, task: Task, outputs: Outputs, reused: bool = False, ui: Ui | None = None, seconds: float | None = None
    ) -> None:
        """A step is done."""
        step = task.step
        if step.node.opaque and not self._ids.is_open(step.id):
            key = self._ids.final.get(step.id)
            own = [Revealed(None if key is None else (key, at)) for at in range(len(outputs))]
            self._ids.reveal(step.id, own)
        self._set(task, outputs)
        if not reused:
            taken = time.perf_counter() - task.began if seconds is None else seconds
            self._tell(NodeFinished(step.id, step.node.name, step.title, step.parent, taken, ui))
        elif self._found_first is not None:
            self._found_first.append(task)
        else:
            self._tell_reused(step)
        self._close(task)

    def _set(self, task: Task, outputs: Outputs) -> None:
        for value in outputs:
            if isinstance(value, Items | Blocked):
                self._special = True
        if self._uses[task.step.id]:
            self.values[task.step.id] = outputs

    def _fail(self, task: Task, cause: BaseException) -> None:
        step = task.step
        _let_go(cause)
        error = NodeError(step.id, step.node.name, step.title, cause)
        self._unavailable[step.id] = error
        if task.parent is None:
            self.failures.append(error)
        self._tell_start(task)
        self._tell(NodeFailed(step.id, step.node.name, step.title, step.parent, error))
        self._close(task)

    def _give_up(self, task: Task, failure: NodeError) -> None:
        """Something that a step needs has failed; if that is a part of it, the step itself has."""
        at = self._tasks[failure.node_id].parent
        while at is not None and at is not task:
            at = at.parent
        if at is task:
            self._fail(task, failure)
        else:
            self._unavailable[task.step.id] = failure
            self._close(task)

    def _close(self, task: Task) -> None:
        """A step is done, or will never be: let go of what it needed, and let others go on."""
        step_id = task.step.id
        advanced = task.phase > Phase.LOOK_UP and task.wanted and task.phase is not Phase.TWIN
        task.phase = Phase.DONE
        self._settled.add(step_id)
        if task.step.node.opaque and not self._ids.is_open(step_id):
            self._ids.reveal(step_id, [Revealed(None)] * len(task.step.node.outputs))
        parent = task.parent
        if parent is not None and task.step.node.progress and parent.ticks:
            if advanced:
                parent.open_ticks -= 1
            self._tell_ticks(parent, task.preview)
        self._drops += task.taken
        task.taken = []
        if step_id in self._held:
            self._held.discard(step_id)
            self._drops += [source for source, _ in task.step.links.values()]
        for waiter in self._waiters.pop(step_id, ()):
            waiter.waiting -= 1
            if not waiter.waiting:
                self._agenda.append(waiter)

    # What is told.

    def _tell(self, event: Event) -> None:
        if self._found_first is not None:
            self._untold.append(event)
        elif self._watched:
            try:
                self._emit(event)
            except BaseException as error:  # of whoever watches; it comes out of the run
                self._stop(error)

    def _tell_start(self, task: Task) -> float:
        """Say that a step begins, and before it the composites that it belongs to."""
        now = time.perf_counter()
        unheard: list[Task] = []
        at: Task | None = task
        while at is not None and not at.told:
            unheard.append(at)
            at = at.parent
        for each in reversed(unheard):
            each.told, each.began = True, now
            step = each.step
            reasons = self.options.reasons.get(step.id, ())
            self._tell(
                NodeStarted(step.id, step.node.name, step.title, step.parent, tuple(str(reason) for reason in reasons))
            )
        return now

    def _tell_reused(self, step: Step) -> None:
        self._tell(NodeReused(step.id, step.node.name, step.title, step.parent))

    def _tell_ticks(self, task: Task, preview: Any = None) -> None:
        """Let a finished step count for the composite it belongs to."""
        self._tell_progress(task, task.ticks - task.open_ticks, task.ticks, preview)

    def _tell_progress(self, task: Task, value: float, maximum: float, preview: Any = None) -> None:
        step = task.step
        self._tell(NodeProgressed(step.id, step.node.name, step.title, step.parent, value, maximum, preview))


def _carried(end: Step) -> list[str]:
    """The inputs of a loop's end that go round: those that its start has too."""
    return [name for name in end.node.inputs if name.startswith(("carried", "state"))]


def _nameless(name: Revealed) -> bool:
    return name.identity is None


def _placed(name: Revealed) -> bool:
    """Whether the store has it in an entry of its own."""
    return name.place is not None or name.items is not None


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
