"""One run of a graph: it begins, steps start and end, somebody stops it, it is over.

Everything here is bookkeeping and happens under the run's lock, on whichever thread; nodes are called outside of it.
What is asked for, what waits for what, and what is to be done next is in `graph/course.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from threading import Lock, local
from typing import Any

from graph.awaiting import EventLoop
from graph.cancellation import Cancellation
from graph.collector import collector_paused
from graph.course import Course
from graph.errors import Cancelled
from graph.events import Emit
from graph.explain import Reason
from graph.folders import Folders
from graph.holdings import Holdings
from graph.keys import identities, origins_key
from graph.plan import Plan
from graph.recording import recorder
from graph.resolve import Graph
from graph.store import Store
from graph.tasks import Outcome, Task
from graph.telling import Telling
from graph.unfolding import Unfolding
from graph.values import Service


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
        self.cancellation = cancellation
        self.services: Mapping[type[Service], Service] = {
            **services,
            Cancellation: cancellation,
            Folders: folders,
        }
        self.stopping: BaseException | None = None
        """Why nothing more is started."""
        self.running: dict[Task, float] = {}
        """Steps whose node is being called, and since when."""
        self.loop = EventLoop(self._enter, self._look)
        """Where its async nodes are."""
        self.context = copy_context()
        """In copies of which its nodes are called, on whichever thread: they see what the caller of the run sees."""
        self.context.run(recorder.set, None)
        self._lock = Lock()
        self._telling = Telling(emit, options.reasons, self._stop)
        plan = Plan(self, identities(self.services))
        holdings = Holdings(plan)
        unfolding = Unfolding(plan, holdings, self._service, folders)
        self._course = Course(plan, holdings, unfolding, store, self._telling)
        self.shown = self._course.shown
        self.failures = self._course.failures
        self.values = self._course.values

    def begin(self, graph: Graph) -> None:
        """Ask for the targets of a graph."""
        with self._lock, collector_paused():
            try:
                self._course.begin(graph)
            finally:
                self._telling.announce(graph)

    def tell_end(self, status: str) -> None:
        """Say that the run is over, which is the last thing that is said of it, and let go of what it holds."""
        with self._lock:
            self.values.clear()
            self._telling.over(status)

    def stop(self, why: BaseException) -> None:
        """Start nothing more. May be called again; the first reason counts."""
        with self._lock:
            self._stop(why)

    def start(self, task: Task) -> bool:
        """Say that a step begins; False if it must not."""
        with self._lock:
            self._heed()
            if self.stopping is not None:
                self._course.active -= 1
                return False
            self.running[task] = self._telling.begins(task)
            return self.stopping is None or self._retreat(task)

    def keep(self, task: Task, outcome: Outcome) -> None:
        """Put what came of a step into the store."""
        key, name = task.key, task.step.node.name
        seconds = outcome.seconds + self._course.debts(task)
        if seconds < self.store.least_seconds:
            task.debt = seconds
        if key is not None:
            self.store.put(key, outcome.outputs, class_name=name, seconds=seconds)
            if outcome.contents is not None:
                self.store.put(origins_key(key), outcome.contents, class_name=name, seconds=seconds)

    def complete(self, task: Task, outcome: Outcome) -> list[Task]:
        """Take in what came of a step. Returns the steps that are ready by that."""
        with self._lock:
            if task.abandoned:
                return []
            self.running.pop(task, None)
            try:
                if isinstance(outcome.error, Cancelled):
                    self._stop(outcome.error)
                else:
                    self._course.take_in(task, outcome)
                self._course.settle()
            except BaseException as error:  # of a store, say: the run ends with it, where nobody would hear of it
                self._stop(error)
            self._course.active -= 1  # last: whoever looks whether the run is over does so without the lock
            return self._course.take_ready()

    def abandon(self, task: Task, error: BaseException) -> list[Task] | None:
        """Count a running step as failed, whatever becomes of it. None if it has ended by itself."""
        with self._lock:
            if self.running.pop(task, None) is None:
                return None
            task.abandoned = True
            self._course.fail(task, error)
            self._course.settle()
            self._course.active -= 1
            return self._course.take_ready()

    def dismiss(self, tasks: Sequence[Task]) -> None:
        """Count steps that were ready as not to be run."""
        with self._lock:
            self._course.active -= len(tasks)

    def progress(self, task: Task, value: float, maximum: float, preview: Any) -> None:
        """Say how far a step is, while it runs."""
        with self._lock:
            if task in self.running:
                self._telling.progressed(task, value, maximum, preview)

    def ready(self) -> list[Task]:
        """The steps that became ready since the last time."""
        with self._lock:
            return self._course.take_ready()

    @property
    def over(self) -> bool:
        """Whether nothing more can happen."""
        return not self._course.active

    def stuck(self, targets: Iterable[str]) -> list[str]:
        """Of the targets, those that are neither made nor have failed, though nothing is left to run."""
        return self._course.stuck(targets)

    def _retreat(self, task: Task) -> bool:
        del self.running[task]
        self._course.active -= 1
        return False

    def _stop(self, why: BaseException) -> None:
        if self.stopping is None:
            self.stopping = why
            self._course.drop_all()
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

    def _service(self, kind: type[Service]) -> Service:
        service = self.services.get(kind)
        if service is None:
            raise LookupError(f"the node needs the service {kind.__name__}, which this engine does not have")
        return service
