"""One run of a graph: what is asked for, what it waits for, and what is to be done next.

Everything here is bookkeeping and happens under the run's lock, on whichever thread; nodes are called outside of it. A
step is *wanted* when its outputs are asked for: by a target, by a step that will run, by a composite that turned out
to pass them on. It then goes through the phases below, as far as it has to: a step that the store has wants nothing.
"""

import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from enum import IntEnum
from threading import Lock, local
from typing import Any, cast

from graph.awaiting import Awaited, EventLoop
from graph.calling import checked, fitting
from graph.cancellation import Cancellation
from graph.errors import Cancelled, NodeError, WrongInput, let_go_of
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
from graph.identities import (
    Constant,
    Gathered,
    Identities,
    Result,
    Revealed,
    item_name,
    literal_name,
    sources_of,
)
from graph.identity import digest
from graph.kept import fetch, record_of
from graph.keys import Key, identities, origins_key
from graph.lanes import Rank
from graph.lists import Blocked, Items
from graph.loops import Loop, Loops, is_end
from graph.recording import recorder
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
    keeps: bool = False
    """Whether its inputs are among that."""
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
    acts: bool = False
    """Whether it acts on the world, so that it is never taken from the store."""
    key: Key | None = None
    """By which other runs may wait for it, once it is ready."""
    claim: Claim | None = None
    awaited: Awaited | None = None
    abandoned: bool = False
    """Whether its run goes on without it, though its node has not returned."""
    made: "Outcome | None" = None
    """What came of it where another run made it."""


@dataclass(slots=True)
class _While:
    """A loop that goes on while its condition holds: what it carries, and how far it is."""

    loop: Loop
    carried: dict[str, Ref]
    most: int
    count: int = 0
    """How many turns have been made."""
    ends: Mapping[str, Ref] = field(default_factory=dict[str, Ref])
    acting: Sequence[str] = ()
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


class _Here(local):
    """Of this thread: the run that it works on."""

    run: "ActiveRun | None" = None


here = _Here()


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
        self.loop = EventLoop(self._enter, self._look)
        """Where its async nodes are."""
        self.context = copy_context()
        """In copies of which its nodes are called, on whichever thread: they see what the caller of the run sees."""
        self.context.run(recorder.set, None)
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
        self._loops: dict[str, Loops] = {}
        """The loops among which each end of one stands."""
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
                    self._uses[target] += 1
                    self._want(target)
                self._settle()
            finally:
                self._announce(graph)

    def tell_end(self, status: str) -> None:
        """Say that the run is over, which is the last thing that is said of it, and let go of what it holds."""
        with self._lock:
            self._watched = False
            self.values.clear()
            self._emit(RunFinished(status, time.perf_counter() - self._began))

    def stop(self, why: BaseException) -> None:
        """Start nothing more. May be called again; the first reason counts."""
        with self._lock:
            self._stop(why)

    def start(self, task: Task) -> bool:
        """Say that a step begins; False if it must not."""
        with self._lock:
            self._heed()
            if self.stopping is not None:
                self._active -= 1
                return False
            self.running[task] = self._tell_start(task)
            return self.stopping is None or self._retreat(task)

    def keep(self, task: Task, outcome: Outcome) -> None:
        """Put what came of a step into the store."""
        key, name = task.key, task.step.node.name
        if key is not None:
            self.store.put(key, outcome.outputs, class_name=name, seconds=outcome.seconds)
            if outcome.contents is not None:
                self.store.put(origins_key(key), outcome.contents, class_name=name, seconds=outcome.seconds)

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
        """Say how far a step is, while it runs."""
        with self._lock:
            if task in self.running:
                self._tell_progress(task, value, maximum, preview)

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

    def _heed(self) -> None:
        """Stop if somebody has cancelled the run."""
        if self.cancellation.requested:
            self._stop(Cancelled("the run was cancelled"))

    def _enter(self) -> None:
        here.run = self

    def _look(self) -> None:
        if self.cancellation.requested:
            self.stop(Cancelled("the run was cancelled"))

    def _targets(self, graph: Graph) -> list[str]:
        """What has to be made: in place of what acts on the world inside a loop, the end of that loop."""
        loops = next(iter(self._loops.values()), None)
        if loops is None:
            return list(graph.targets)
        sinks = {step.id for step in graph.steps if step.node.sink}
        return list(dict.fromkeys(loops.acting_for(each) if each in sinks else each for each in graph.targets))

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

    def _add(self, steps: Sequence[Step], parent: Task | None, first: int = 0) -> list[str]:
        """Take in the steps of the document, or those that a composite stands for. Returns those that are to be made
        for what they do to the world."""
        if parent is not None and parent.depth >= MOST_NESTED:
            raise RecursionError(f"composites are nested more than {MOST_NESTED} deep; does one call itself?")
        self._ids.add(steps)
        places, listy = self._places, self._listy
        ends: list[str] = []
        acting: list[str] = []
        for at, step in enumerate(steps, first):
            places[step.id] = parent, at
            if step.node.gives_lists or (listy and any(source in listy for source, _ in step.links.values())):
                listy.add(step.id)
            if step.node.sink:
                acting.append(step.id)
            elif is_end(step):
                ends.append(step.id)
        if ends:
            loops = Loops(steps)
            self._loops |= dict.fromkeys(ends, loops)
            acting = loops.acting()
        return acting

    def _task(self, step_id: str) -> Task:
        task = self._tasks.get(step_id)
        if task is None:
            step = self._ids.steps[step_id]
            parent, at = self._places[step_id]
            rank, depth = ((at,), 0) if parent is None else ((*parent.rank, at), parent.depth + 1)
            phase = Phase.LOOK_UP if step_id in self._ids.final or step.node.sink else Phase.NAME
            task = self._tasks[step_id] = Task(step, rank, self, step.node.lane, phase, parent, depth)
            loops = self._loops.get(step_id)
            task.acts = step.node.sink or (loops is not None and loops.acts(step))
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
        if not task.keeps:
            task.keeps = True
            for source, _ in task.step.links.values():
                self._hold(source)
                task.taken.append(source)

    def _hold(self, step_id: str) -> None:
        """Keep the outputs of a step until they are dropped, and what it needs for as long as nobody wants it yet."""
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
                task = self._tasks.get(at)
                if task is not None and not task.wanted:  # it was looked into, and that is all
                    stack += task.taken
                    task.taken, task.keeps = [], False
                if at in self._held and not (task and task.wanted):
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
                self._take_from_twin(task, task.needs[0])
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
        key = None if task.acts or step.id in self._ids.nameless else self._ids.final.get(step.id)
        record = None
        if key is not None and (node.opaque or step.id in self._listy):
            record = record_of(self.store, key)
            if record is not None:
                self._ids.reveal(step.id, record)
        if not task.wanted:
            if node.opaque and self._ids.is_open(step.id):
                return True
            if node.composite or node.loop == "each":  # which can be looked into without running anything
                twin = step.id if key is None else self._by_key.setdefault(key, step.id)
                if twin != step.id and self._ids.is_open(twin):
                    self._ids.reveal(step.id, self._names(twin, len(node.outputs)))
                    return True
                self._keep_inputs(task)
                return False
            task.wanted = True
            self._keep_inputs(task)
        if key is None:
            return False
        if self._shares(task, key):
            return True
        outputs = None if node.cutoff and record is None else fetch(self.store, key, record)
        if outputs is None:
            return False
        self._finish(task, outputs, reused=True)
        return True

    def _shares(self, task: Task, key: Key) -> bool:
        """Whether a step takes what another one with the same key makes, or has made.

        It never waits for one that waits itself: what that one waits for may come to need this one, for a key does
        not tell which way a switch goes or what else a composite makes. A composite's or a loop's own key does.
        """
        twin = self._by_key.setdefault(key, task.step.id)
        if twin == task.step.id:
            return False
        if twin in self._settled:
            failure = self._unavailable.get(twin)
            if twin not in self.values and (failure is None or failure.node_id != twin):
                return False
            self._take_from_twin(task, twin)
            return True
        self._uses[twin] += 1
        task.taken.append(twin)
        if task.step.node.composite or is_end(task.step) or self._tasks[twin].phase is Phase.READY:
            self._wait(task, [twin])
            task.phase = Phase.TWIN
            return True
        if task.phase is Phase.INPUTS:  # this one is the first that has everything it needs
            self._by_key[key] = task.step.id
            self._uses[task.step.id] += 1
            self._tasks[twin].taken.append(task.step.id)
        return False

    def _take_from_twin(self, task: Task, twin: str) -> None:
        failure = self._unavailable.get(twin)
        if failure is not None and failure.node_id == twin:
            self._fail(task, failure.__cause__ or failure)
            return
        if failure is not None:
            self._unavailable[task.step.id] = failure
            self._close(task)
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
        if is_end(step):
            task.loop = self._loops[step.id].of(step)
            needs = [source for source, _ in task.loop.settings]
        elif node.composite:
            needs = [source for name, (source, _) in step.links.items() if self._is_known(step, name, source)]
        else:
            needs = [source for source, _ in step.links.values()]
            if not task.keeps:
                task.keeps = True
                task.taken += needs
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
        if self._gave_up(task):
            return
        if step.id in self._ids.nameless:
            raise self._ids.nameless[step.id]
        if task.loop is not None:
            if self._special and self._is_blocked_loop(task, task.loop):
                return
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
        key = None if node.sink else self._ids.final[step.id]
        if key is not None and self._by_key.get(key) != step.id and self._shares(task, key):
            return
        task.phase = Phase.READY
        task.key = key
        self._active += 1
        self._ready.append(task)

    # Lists and blocked values.

    def _came(self, step: Step) -> dict[str, object]:
        """What has come by the links of a step so far, by input."""
        return {
            name: self.values[source][output] for name, (source, output) in step.links.items() if source in self.values
        }

    def _blocked(self, step: Step) -> Blocked | None:
        for name, value in self._came(step).items():
            declared = step.node.inputs[name]
            if step.node.composite and not (declared.known or declared.many):
                continue  # which it may not use
            if isinstance(value, Blocked):
                return value
            if isinstance(value, Items) and declared.many:
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
        refs = {name: self._item_refs(task, step.links[name]) for name in self._lists(step)}
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
        self._unfold(task, results, self._add(parts, task))

    def _item_refs(self, task: Task, ref: Ref) -> list[Ref]:
        """The items of a list as values of their own, kept for a step."""
        value = self.values[ref[0]][ref[1]]
        if not isinstance(value, Items):
            return [ref]
        refs = self._items.get(ref)
        if refs is None:
            refs = self._items[ref] = [
                (self._free_id(f"{ref[0]}[{ref[1]}][{at}]"), 0) for at in range(len(value.values))
            ]
            for (name, _), known in zip(refs, self._item_names(ref, len(refs)), strict=True):
                self._ids.add_value(name, known)
        for (name, _), item in zip(refs, value.values, strict=True):
            self._keep_value(task, name, item)
        return refs

    def _item_names(self, ref: Ref, count: int) -> Sequence[Revealed]:
        named, whole = self._ids.place(ref).items, self._ids.of(ref)
        if named is not None:
            return named
        return [Revealed(whole and item_name(whole, at)) for at in range(count)]

    def _new_value(self, task: Task, name: str, value: object) -> Ref:
        """A value that is no step's output, under an id of its own, kept for a step."""
        name = self._free_id(name)
        self._ids.add_value(name, Revealed(literal_name(value)))
        self._keep_value(task, name, value)
        return name, 0

    def _keep_value(self, task: Task, name: str, value: object) -> None:
        self._settled.add(name)
        self.values[name] = (value,)
        self._uses[name] += 1
        task.taken.append(name)

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
                items[name] = self._item_refs(task, (source, output))
            if declared.known:
                known[name] = fitting(declared, self.values[source][output])
        services = {name: self._service(kind) for name, kind in node.services.items()}
        expansion = expand(step, known, services, self.folders, items=items, taken=self._ids.static)
        acting = self._add(expansion.steps, task)
        self._check_inner(task, expansion.steps)
        task.ticks = sum(inner.node.progress for inner in expansion.steps)
        self._unfold(task, expansion.results, acting)

    def _service(self, kind: type[Service]) -> Service:
        service = self.services.get(kind)
        if service is None:
            raise LookupError(f"the node needs the service {kind.__name__}, which this engine does not have")
        return service

    def _unfold(self, task: Task, results: tuple[Result, ...], acting: Sequence[str]) -> None:
        """Steps have been put in the place of a step, of which some act on the world."""
        task.results = results
        task.sinks = tuple(acting)
        task.phase = Phase.EXPANDED
        if not self._ids.is_open(task.step.id) and not task.step.node.cutoff and not task.step.node.sink:
            self._reveal(self._ids.ask_results(task.step.id, results))
        if task.wanted:
            self._want_results(task)
        else:
            sources = [source for source, _ in sources_of(results)]
            for source in sources:
                self._hold(source)
            task.taken += sources

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
        if task.loop is not None:
            task.open_ticks = task.waiting

    def _pass_on(self, task: Task, needs: list[str], kept: Sequence[str] = ()) -> None:
        """Have a task need other steps than before, and keep some that it may need later."""
        taken = [*needs, *kept]
        for source in needs:
            self._uses[source] += 1
        for source in kept:
            self._hold(source)
        self._drops += task.taken
        task.taken = taken
        task.phase = Phase.RESULTS
        self._wait(task, needs)
        if not task.waiting:
            self._agenda.append(task)

    def _end(self, task: Task) -> None:
        """Everything a composite needed is there: its outputs are."""
        step, node = task.step, task.step.node
        if self._gave_up(task):
            return
        outputs = tuple(self._result(result) for result in task.results)
        if not is_end(step):  # whose outputs may be left empty
            checked(node, outputs, lists=step.id in self._listy)
        self._tell_start(task)
        names = [self._result_name(step, at, result) for at, result in enumerate(task.results)]
        self._ids.reveal(step.id, self._remember(task, outputs, names))
        self._finish(task, outputs)

    def _result(self, result: Result) -> object:
        if isinstance(result, Constant):
            return result.value
        if isinstance(result, tuple):
            return self.values[result[0]][result[1]]
        values = [self._result(source) for source in result.sources]
        return Items(
            tuple(item for value in values for item in (value.values if isinstance(value, Items) else (value,)))
        )

    def _result_name(self, step: Step, at: int, result: Result) -> Revealed:
        """What an output is, and where the store has it, as far as it does."""
        name = self._ids.name_of(step.id, at, result)
        if not isinstance(result, Gathered):
            return name
        if self._ids.is_open(step.id):
            name = Revealed(self._ids.of((step.id, at)))
        items: list[Revealed] = []
        for place, source in enumerate(result.sources):
            if isinstance(source, Constant):
                items.append(Revealed(self._ids.constant_name(step.id, source.value, at, place)))
                continue
            value = self.values[source[0]][source[1]]
            if isinstance(value, Items):
                items += self._item_names(source, len(value.values))
            else:
                items.append(self._ids.place(source))
        return replace(name, items=tuple(items))

    def _remember(self, task: Task, outputs: Outputs, names: Sequence[Revealed]) -> Sequence[Revealed]:
        """Keep what a step turned out to be; its outputs themselves only where no entry has them."""
        step, node = task.step, task.step.node
        key = None if task.acts else self._ids.final[step.id]
        if key is None or any(name.identity is None for name in names):
            return names
        rest = digest(b"rest", key)
        placed = [name if _placed(name) else replace(name, place=(rest, at)) for at, name in enumerate(names)]
        own = [
            output if name.place == (rest, at) else None
            for at, (output, name) in enumerate(zip(outputs, placed, strict=True))
        ]
        seconds = time.perf_counter() - task.began
        if placed != list(names):
            self.store.put(rest, tuple(own), class_name=node.name, seconds=seconds)
        self.store.put(origins_key(key), tuple(placed), class_name=node.name, seconds=seconds)
        return placed

    # Loops.

    def _is_blocked_loop(self, task: Task, loop: Loop) -> bool:
        for source, output in loop.settings:
            value = self.values[source][output]
            if isinstance(value, Blocked):
                self._skip(task, value)
                return True
        return False

    def _begin_loop(self, task: Task, loop: Loop) -> None:
        """Unfold a loop over items, whose turns are known; begin one that ends when its condition does."""
        step, start = task.step, loop.start
        self._tell_start(task)
        carried = {name: self._given(task, start, name) for name in loop.carried}
        if step.node.loop == "while":
            most = fitting(step.node.inputs["most_turns"], self._setting(step, "most_turns"))
            self._turn(task, _While(loop, carried, cast(int, most)))
            return
        items = self._start_items(task, start)
        count = self._new_value(task, f"{step.id}[count]", len(items))
        acting: list[str] = []
        results: list[Ref | Constant] = []
        for at, item in enumerate(items):
            name = f"{step.id}.{at}"
            given = {"item": item, "item_index": self._new_value(task, f"{name}[index]", at), "item_count": count}
            turn = loop.turn(name, given | carried, self._ids.static)
            acting += self._add(turn.steps, task, at * len(turn.steps))
            if "result" in turn.ends:
                results.append(turn.ends["result"])
            elif step.literals.get("result") is not None:
                results.append(Constant(step.literals["result"]))
            carried |= {name: ref for name, ref in turn.ends.items() if name in carried}
        task.ticks = len(items)
        self._unfold(task, (Gathered(tuple(results)), *carried.values()), acting)

    def _setting(self, step: Step, name: str) -> object:
        link = step.links.get(name)
        return self.values[link[0]][link[1]] if link else step.literals[name]

    def _start_items(self, task: Task, start: Step) -> list[Ref]:
        link = start.links.get("items")
        if link is not None:
            return self._item_refs(task, link)
        given = cast("list[object]", start.literals["items"])
        return [self._new_value(task, f"{task.step.id}[items][{at}]", item) for at, item in enumerate(given)]

    def _given(self, task: Task, start: Step, name: str) -> Ref:
        return start.links.get(name) or self._new_value(task, f"{task.step.id}[{name}]", start.literals.get(name))

    def _turn(self, task: Task, turns: "_While") -> None:
        """Begin a turn: find out whether it is to be made."""
        name = f"{task.step.id}.{turns.count}"
        given = {"turn": self._new_value(task, f"{name}[turn]", turns.count)}
        turn = turns.loop.turn(name, given | turns.carried, self._ids.static)
        turns.acting = self._add(turn.steps, task, turns.count * len(turn.steps))
        turns.ends = turn.ends
        turns.tested = False
        task.turns = turns
        condition = turn.ends.get("condition")
        following = [turn.ends[name][0] for name in turns.carried if name in turn.ends]
        kept = [*(source for source, _ in turns.carried.values()), *following, *turns.acting, *turns.loop.outside]
        self._pass_on(task, [condition[0]] if condition else [], kept)

    def _next_turn(self, task: Task, turns: "_While") -> None:
        """The condition of a turn is known, or the turn has been made."""
        step = task.step
        if self._gave_up(task):
            return
        if turns.tested:
            turns.count += 1
            self._tell_progress(task, turns.count, turns.most)
            self._turn(task, turns)
            return
        turns.tested = True
        condition = turns.ends.get("condition")
        value = self.values[condition[0]][condition[1]] if condition else step.literals["condition"]
        if isinstance(value, Blocked):
            self._skip(task, value)
            return
        if isinstance(value, Items):
            raise WrongInput("condition", f"expected true or false, found a list of {len(value.values)}")
        if not fitting(step.node.inputs["condition"], value):
            task.turns = None
            task.results = (*turns.carried.values(), self._new_value(task, f"{step.id}[turns]", turns.count))
            self._pass_on(task, [source for source, _ in sources_of(task.results)])
            return
        if turns.count == turns.most:
            raise RuntimeError(f"its condition still holds after {turns.most} turns; raise most_turns if that is meant")
        turns.carried |= {name: ref for name, ref in turns.ends.items() if name in turns.carried}
        needs = [*(source for source, _ in turns.carried.values()), *turns.acting]
        self._pass_on(task, needs, turns.loop.outside)

    # What came of a step.

    def _take_in(self, task: Task, outcome: Outcome) -> None:
        step = task.step
        if outcome.error is not None:
            if isinstance(outcome.error, Cancelled):
                self._stop(outcome.error)
            else:
                self._fail(task, outcome.error)
            return
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
        let_go_of(cause)
        error = NodeError(step.id, step.node.name, step.title, cause)
        self._unavailable[step.id] = error
        if task.parent is None:
            self.failures.append(error)
        self._tell_start(task)
        self._tell(NodeFailed(step.id, step.node.name, step.title, step.parent, error))
        self._close(task)

    def _gave_up(self, task: Task) -> bool:
        """Whether something that a step needs has failed; if that is a part of it, the step itself has."""
        if not self._unavailable:
            return False
        failures = [failure for source in task.needs if (failure := self._unavailable.get(source))]
        inside = next((failure for failure in failures if self._is_part(failure.node_id, task)), None)
        if inside is not None:
            self._fail(task, inside)
        elif failures:
            self._unavailable[task.step.id] = failures[0]
            self._close(task)
        return bool(failures)

    def _is_part(self, step_id: str, task: Task) -> bool:
        at = self._tasks[step_id].parent
        while at is not None and at is not task:
            at = at.parent
        return at is task

    def _close(self, task: Task) -> None:
        """A step is done, or will never be: let go of what it needed, and let others go on."""
        step_id = task.step.id
        advanced = task.phase > Phase.LOOK_UP and task.wanted and task.phase is not Phase.TWIN
        task.phase = Phase.DONE
        self._settled.add(step_id)
        if task.step.node.opaque and not self._ids.is_open(step_id):
            self._ids.reveal(step_id, [Revealed(None)] * len(task.step.node.outputs))
        parent = task.parent
        if parent is not None and task.step.node.progress and parent.ticks and parent.loop is None:
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
            if waiter.loop is not None and waiter.open_ticks:
                done = waiter.ticks * (waiter.open_ticks - waiter.waiting) // waiter.open_ticks
                self._tell_progress(waiter, done, waiter.ticks)
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


def _placed(name: Revealed) -> bool:
    """Whether the store has it in an entry of its own."""
    if name.place is None and name.items is not None:
        return all(item.place is not None for item in name.items)
    return name.place is not None


def _unforeseen(step: Step, inner: Step, key: Key | None) -> str | None:
    """What a step inside a composite depends on that the composite's key does not tell."""
    if key is None and not inner.node.sink:
        return f"calls {inner.node.name}, whose result may differ from run to run: declare it impure"
    unknown = set(inner.files.values()).difference(step.files.values())
    if unknown:
        names = ", ".join(name for name, file in inner.files.items() if file in unknown)
        return f"chooses a file itself ({names} of {inner.node.name}): take the name as an input, or declare it impure"
    return None
