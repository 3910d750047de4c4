"""How a run's steps go from phase to phase: who wants what, what each waits for, and what came of it.

A step is *wanted* when its outputs are asked for: by a target, by a step that will run, by a composite that turned out
to pass them on. It then goes through the phases in `graph/tasks.py`, as far as it has to: a step that the store has
wants nothing. A step that nobody wants may still have to be *looked into*, because what follows is named by what comes
out of it (`graph/identities.py`).
"""

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace

from graph.errors import NodeError, let_go_of
from graph.holdings import Holdings
from graph.identities import Revealed, sources_of
from graph.identity import digest
from graph.kept import fetch, record_of
from graph.keys import Key, origins_key
from graph.lists import Blocked, Items
from graph.loops import is_end
from graph.plan import Plan
from graph.resolve import Graph
from graph.store import Outputs, Store
from graph.tasks import Inside, Outcome, Phase, Task
from graph.telling import Telling
from graph.turns import Turns
from graph.unfolding import Unfolding
from graph.values import Ui


class Course:
    """All steps of a run, on their way. Whoever calls it holds the run's lock."""

    def __init__(self, plan: Plan, holdings: Holdings, unfolding: Unfolding, store: Store, telling: Telling) -> None:
        self.active = 0
        """How many steps are ready or running."""
        self.ready: list[Task] = []
        """Steps that became ready and are in no lane yet."""
        self.shown: dict[str, Ui] = {}
        self.failures: list[NodeError] = []
        self.values = holdings.values
        """Outputs of steps that are done, for as long as somebody will take them."""
        self.store = store
        self._plan = plan
        self._ids = plan.ids
        self._tasks = plan.tasks
        self._settled = plan.settled
        self._holdings = holdings
        self._unfolding = unfolding
        self._telling = telling
        self._unavailable: dict[str, NodeError] = {}
        """Steps that failed or need one that did, and the failure."""
        self._waiters: dict[str, list[Task]] = {}
        self._by_key: dict[Key, str] = {}
        self._agenda: deque[Task] = deque()
        self._special = False
        """Whether any list or blocked value has come up."""

    def begin(self, graph: Graph) -> None:
        """Ask for the targets of a graph."""
        self._plan.add(graph.steps)
        for target in self._plan.targets(graph):
            self._holdings.keep(target)
            self.want(target)
        self.settle()

    def drop_all(self) -> None:
        """Go on with nothing any more."""
        self.active -= len(self.ready)
        self.ready.clear()
        self._agenda.clear()

    def take_ready(self) -> list[Task]:
        """The steps that became ready since the last time."""
        ready, self.ready = self.ready, []
        return ready

    def stuck(self, targets: Iterable[str]) -> list[str]:
        """Of the targets, those that are neither made nor have failed, though nothing is left to run."""
        return [target for target in targets if target in self._tasks and target not in self._settled]

    def debts(self, task: Task) -> float:
        """Seconds that making again would take for what a step was given, as far as nobody keeps it."""
        sources = [self._tasks.get(source) for source, _ in task.step.links.values()]
        return sum(source.debt for source in sources if source is not None)

    # Who wants what.

    def want(self, step_id: str) -> None:
        """Ask for the outputs of a step."""
        if step_id in self._settled:
            return
        task = self._tasks.get(step_id) or self._plan.task(step_id)
        if not task.wanted:
            task.wanted = True
            if task.phase is Phase.NAME or task.step.node.opaque:
                self._holdings.hold_inputs(task)
            self._agenda.append(task)

    def _look_into(self, step_ids: Iterable[str]) -> None:
        """Have opaque steps looked into."""
        for step_id in step_ids:
            if step_id not in self._tasks:
                self._agenda.append(self._plan.task(step_id))

    def _wait(self, task: Task, needs: Iterable[str]) -> None:
        task.needs = tuple(dict.fromkeys(needs))
        task.waiting = 0
        for source in task.needs:
            self.want(source)
            if source not in self._settled:
                self._waiters.setdefault(source, []).append(task)
                task.waiting += 1

    # From phase to phase.

    def settle(self) -> None:
        """Go on with whatever can go on."""
        agenda, tasks, ids = self._agenda, self._tasks, self._ids
        while True:
            for step_id in ids.take_fresh():
                task = tasks.get(step_id)
                if task is not None and task.phase is Phase.NAME and step_id in ids.final:
                    agenda.append(task)
            if not agenda:
                break
            while agenda:
                task = agenda.popleft()
                try:
                    self._go_on(task)
                except Exception as error:
                    self.fail(task, error)
        self._holdings.drop()
        self._plan.forget()

    def _go_on(self, task: Task) -> None:
        if task.phase is Phase.NAME:
            step_id = task.step.id
            if step_id not in self._ids.final:
                self._look_into(self._ids.ask(step_id))
                if step_id not in self._ids.final:
                    return
            task.phase = Phase.LOOK_UP
        if task.phase is Phase.LOOK_UP and not self._looked_up(task):
            self._ask_inputs(task)
        if task.phase is Phase.INPUTS:
            if not task.waiting:
                self._proceed(task)
        elif task.phase is Phase.TWIN:
            if not task.waiting:
                self._take_from_twin(task, task.needs[0])
        elif task.phase is Phase.UNFOLDED:
            if task.wanted and task.inside is not None:
                self._want_results(task, task.inside)
        elif task.phase is Phase.RESULTS and not task.waiting and task.inside is not None:
            if task.inside.turns is not None:
                self._next_turn(task, task.inside, task.inside.turns)
            else:
                self._end(task, task.inside)

    def _looked_up(self, task: Task) -> bool:
        """Whether there is nothing to be done for a step, or nothing for now."""
        step, node, ids = task.step, task.step.node, self._ids
        key = None if task.acts or step.id in ids.nameless else ids.final[step.id]
        record = None
        if key is not None and (node.opaque or step.id in self._plan.listy):
            record = record_of(self.store, key)
            if record is not None:
                ids.reveal(step.id, record)
        if not task.wanted:
            if ids.is_open(step.id):
                return True
            if node.composite or node.loop == "each":  # which can be looked into without running anything
                return self._learns(task, key)
            task.wanted = True
            self._holdings.hold_inputs(task)
        if key is None:
            return False
        if self._shares(task, key):
            return True
        outputs = None if node.cutoff and record is None else fetch(self.store, key, record)
        if outputs is None:
            return False
        self._finish(task, outputs, reused=True)
        return True

    def _learns(self, task: Task, key: Key | None) -> bool:
        """Whether what comes out of a step is known of another one with the same key."""
        twin = task.step.id if key is None else self._by_key.setdefault(key, task.step.id)
        if twin != task.step.id and self._ids.is_open(twin):
            self._ids.reveal(task.step.id, self._names(twin, task))
            return True
        self._holdings.hold_inputs(task)
        return False

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
        other = self._tasks.get(twin)
        if other is None:  # it was left behind
            self._by_key[key] = task.step.id
            return False
        self._holdings.keep(twin, task)
        if task.step.node.composite or is_end(task.step) or other.phase is Phase.READY:
            self._wait(task, [twin])
            task.phase = Phase.TWIN
            return True
        if task.phase is Phase.INPUTS:  # this one is the first that has everything it needs
            self._by_key[key] = task.step.id
            self._holdings.keep(task.step.id, other)
        return False

    def _take_from_twin(self, task: Task, twin: str) -> None:
        failure = self._unavailable.get(twin)
        if failure is None:
            if task.step.node.opaque:
                self._ids.reveal(task.step.id, self._names(twin, task))
            self._finish(task, self.values[twin], reused=True)
        elif failure.node_id == twin:
            self.fail(task, failure.__cause__ or failure)
        else:
            self._unavailable[task.step.id] = failure
            self._close(task)

    def _names(self, twin: str, task: Task) -> list[Revealed]:
        return [self._ids.place((twin, at)) for at in range(len(task.step.node.outputs))]

    def _ask_inputs(self, task: Task) -> None:
        """Want what a step needs before it can run, or before it can be unfolded."""
        step, node = task.step, task.step.node
        task.phase = Phase.INPUTS
        if node.progress and task.wanted and task.parent is not None and task.parent.inside is not None:
            task.parent.inside.open_ticks += 1
        if node.composite or is_end(step):
            self._wait(task, self._unfolding.needs(step))
            return
        needs = [source for source, _ in step.links.values()]
        if not task.keeps_inputs:
            task.keeps_inputs = True
            for source in needs:
                self._holdings.keep(source, task)
        self._wait(task, needs)

    def _proceed(self, task: Task) -> None:
        """Everything that was needed is there."""
        step, node = task.step, task.step.node
        if self._unavailable and self._gave_up(task):
            return
        if step.id in self._ids.nameless:
            raise self._ids.nameless[step.id]
        lists: Sequence[str] = ()
        if self._special:
            blocked = self._unfolding.blocked(step)
            if blocked is not None:
                self._skip(task, blocked)
                return
            lists = self._unfolding.lists(step)
        if lists or node.composite or is_end(step):
            self._unfold(task, lists)
            return
        key = None if node.sink else self._ids.final[step.id]
        if key is not None and self._by_key.get(key) != step.id and self._shares(task, key):
            return
        task.phase = Phase.READY
        task.key = key
        self.active += 1
        self.ready.append(task)

    def _unfold(self, task: Task, lists: Sequence[str]) -> None:
        """Put steps in the place of a step."""
        step = task.step
        if is_end(step):
            self._telling.begins(task)
        inside = task.inside = self._unfolding.unfold(task, lists)
        if inside.turns is not None:
            self._pass_on(task, *inside.turns.begin(self._plan, self._unfolding.givens))
            return
        task.phase = Phase.UNFOLDED
        if not self._ids.is_open(step.id) and not step.node.cutoff and not step.node.sink:
            self._look_into(self._ids.ask_results(step.id, inside.results))
        if task.wanted:
            self._want_results(task, inside)
        else:
            for source, _ in sources_of(inside.results):
                self._holdings.hold(source, task)

    def _want_results(self, task: Task, inside: Inside) -> None:
        """Ask for what the outputs of a step come from, and for what it does to the world."""
        self._pass_on(task, [*(source for source, _ in sources_of(inside.results)), *inside.acting])
        inside.open_pieces = task.waiting

    def _pass_on(self, task: Task, needs: Sequence[str], held: Sequence[str] = ()) -> None:
        """Have a task need other steps than before, and hold some that it may need later."""
        before, task.taken = task.taken, []
        for source in needs:
            self._holdings.keep(source, task)
        for source in held:
            self._holdings.hold(source, task)
        self._holdings.release(before)
        task.phase = Phase.RESULTS
        self._wait(task, needs)
        if not task.waiting:
            self._agenda.append(task)

    def _next_turn(self, task: Task, inside: Inside, turns: Turns) -> None:
        """The condition of a turn is known, or the turn has been made."""
        if self._unavailable and self._gave_up(task):
            return
        if turns.is_tested:
            turns.count += 1
            self._telling.progressed(task, turns.count, turns.most)
            self._pass_on(task, *turns.begin(self._plan, self._unfolding.givens))
            return
        condition = turns.condition(self.values)
        if isinstance(condition, Blocked):
            self._skip(task, condition)
        elif condition:
            self._pass_on(task, turns.make(), turns.loop.outside)
        else:
            count = self._unfolding.givens.add(task, f"{task.step.id}[turns]", turns.count)
            inside.turns = None
            inside.results = (*turns.carried.values(), count)
            self._pass_on(task, [source for source, _ in sources_of(inside.results)])

    def _end(self, task: Task, inside: Inside) -> None:
        """Everything that was put in the place of a step is made: its outputs are there."""
        if self._unavailable and self._gave_up(task):
            return
        outputs, names = self._unfolding.outputs(task, inside)
        self._telling.begins(task)
        self._ids.reveal(task.step.id, self._remember(task, outputs, names))
        self._finish(task, outputs)
        self._plan.leave_behind(task.step.id)

    def _remember(self, task: Task, outputs: Outputs, names: Sequence[Revealed]) -> Sequence[Revealed]:
        """Keep what a step turned out to be; its outputs themselves only where no entry has them."""
        key = None if task.acts else self._ids.final[task.step.id]
        if key is None or any(name.identity is None for name in names):
            return names
        seconds = time.perf_counter() - task.began
        rest = digest(b"rest", key)
        placed = [name if name.is_placed else replace(name, place=(rest, at)) for at, name in enumerate(names)]
        if placed != list(names):
            missing = tuple(None if name.is_placed else output for name, output in zip(names, outputs, strict=True))
            self.store.put(rest, missing, class_name=task.step.node.name, seconds=seconds)
        self.store.put(origins_key(key), tuple(placed), class_name=task.step.node.name, seconds=seconds)
        return placed

    # What came of a step.

    def take_in(self, task: Task, outcome: Outcome) -> None:
        """Go by what came of a step that ran."""
        step = task.step
        if outcome.error is not None:
            self.fail(task, outcome.error)
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
        self._put(task, outputs)
        if reused:
            self._telling.reused(task)
        else:
            self._telling.finished(task, time.perf_counter() - task.began if seconds is None else seconds, ui)
        self._close(task)

    def _skip(self, task: Task, blocked: Blocked) -> None:
        """A step is not to be run, and gives nothing."""
        self._telling.skipped(task, blocked.message)
        self._put(task, (Blocked(),) * len(task.step.node.outputs))
        self._close(task)

    def _put(self, task: Task, outputs: Outputs) -> None:
        for value in outputs:
            if isinstance(value, Items | Blocked):
                self._special = True
        self._holdings.put(task.step.id, outputs)

    def fail(self, task: Task, cause: BaseException) -> None:
        """Count a step as failed, and what needs it as not to be made."""
        step = task.step
        let_go_of(cause)
        error = NodeError(step.id, step.node.name, step.title, cause)
        self._unavailable[step.id] = error
        if task.parent is None:
            self.failures.append(error)
        self._telling.failed(task, error)
        self._close(task)

    def _gave_up(self, task: Task) -> bool:
        """Whether something that a step needs has failed; if that is a part of it, the step itself has."""
        failures = [failure for source in task.needs if (failure := self._unavailable.get(source))]
        inside = next((failure for failure in failures if self._plan.is_inside(failure.node_id, task)), None)
        if inside is not None:
            self.fail(task, inside)
        elif failures:
            self._unavailable[task.step.id] = failures[0]
            self._close(task)
        return bool(failures)

    def _close(self, task: Task) -> None:
        """A step is done, or will never be: let go of what it needed, and let others go on."""
        step, phase = task.step, task.phase
        task.phase = Phase.DONE
        self._settled.add(step.id)
        if step.node.opaque and not self._ids.is_open(step.id):
            self._ids.reveal(step.id, [Revealed(None)] * len(step.node.outputs))
        if step.node.progress and task.parent is not None and task.parent.inside is not None:
            self._tick(task, task.parent, task.parent.inside, phase)
        self._holdings.release(task.taken)
        task.taken = []
        self._holdings.close(step)
        for waiter in self._waiters.pop(step.id, ()):
            waiter.waiting -= 1
            inside = waiter.inside
            if inside is not None and inside.pieces and inside.open_pieces:
                done = inside.pieces * (inside.open_pieces - waiter.waiting) // inside.open_pieces
                self._telling.progressed(waiter, done, inside.pieces)
            if not waiter.waiting:
                self._agenda.append(waiter)

    def _tick(self, task: Task, parent: Task, inside: Inside, phase: Phase) -> None:
        """Let a step count for the composite it belongs to."""
        if inside.ticks:
            if task.wanted and phase > Phase.LOOK_UP and phase is not Phase.TWIN:
                inside.open_ticks -= 1
            self._telling.progressed(parent, inside.ticks - inside.open_ticks, inside.ticks, task.preview)
