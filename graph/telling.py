"""What a run tells whoever watches it."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graph.errors import NodeError
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
from graph.explain import Reason
from graph.resolve import Graph
from graph.tasks import Task
from graph.values import Ui


class Telling:
    """Tells the events of one run. What happens before it is announced is told after that.

    Args:
        reasons: why steps have to run, by id.
        refused: is told what whoever watches has raised.
    """

    def __init__(
        self, emit: Emit, reasons: Mapping[str, Sequence[Reason]], refused: Callable[[BaseException], None]
    ) -> None:
        self._emit = emit
        self._watched = emit is not ignore
        self._reasons = reasons
        self._refused = refused
        self._began = time.perf_counter()
        self._announced = False
        self._found: list[Task] = []
        self._untold: list[Event] = []

    def announce(self, graph: Graph) -> None:
        """Say what the plan is, now that it is known what is at hand."""
        self._announced = True
        if not self._watched:
            return
        self._found.sort(key=lambda task: task.rank)
        found = {task.step.id for task in self._found}
        needed: list[str] = []
        reached = set(graph.targets)
        for step in reversed(graph.steps):
            if step.id in reached and step.id not in found:
                needed.append(step.id)
                for source, _ in step.links.values():
                    reached.add(source)
        at_hand = tuple(task.step.id for task in self._found if task.parent is None)
        self._tell(RunStarted(tuple(reversed(needed)), at_hand))
        for task in self._found:
            self.reused(task)
        for event in self._untold:
            self._tell(event)
        self._found, self._untold = [], []

    def over(self, status: str) -> None:
        """The run is over, which is the last thing that is said of it."""
        self._watched = False
        self._emit(RunFinished(status, time.perf_counter() - self._began))

    def begins(self, task: Task) -> float:
        """A step begins, and before it the composites and loops that it is in, unless that has been told."""
        now = time.perf_counter()
        if task.told:
            return now
        if task.parent is not None:
            unheard = [task]
            around = task.parent
            while around is not None and not around.told:
                unheard.append(around)
                around = around.parent
            for each in reversed(unheard):
                self._begins(each, now)
        else:
            self._begins(task, now)
        return now

    def _begins(self, task: Task, now: float) -> None:
        task.told, task.began = True, now
        if self._watched:
            step = task.step
            reasons = tuple(str(reason) for reason in self._reasons.get(step.id, ()))
            self._tell(NodeStarted(step.id, step.node.name, step.title, step.parent, reasons))

    def reused(self, task: Task) -> None:
        if not self._announced:
            self._found.append(task)
        elif self._watched:
            step = task.step
            self._tell(NodeReused(step.id, step.node.name, step.title, step.parent))

    def finished(self, task: Task, seconds: float, ui: Ui | None) -> None:
        if self._watched:
            step = task.step
            self._tell(NodeFinished(step.id, step.node.name, step.title, step.parent, seconds, ui))

    def failed(self, task: Task, error: NodeError) -> None:
        self.begins(task)
        step = task.step
        self._tell(NodeFailed(step.id, step.node.name, step.title, step.parent, error))

    def skipped(self, task: Task, message: str | None) -> None:
        if task.parent is not None:
            self.begins(task.parent)
        step = task.step
        self._tell(NodeSkipped(step.id, step.node.name, step.title, step.parent, message))

    def progressed(self, task: Task, value: float, maximum: float, preview: Any = None) -> None:
        if self._watched:
            step = task.step
            self._tell(NodeProgressed(step.id, step.node.name, step.title, step.parent, value, maximum, preview))

    def _tell(self, event: Event) -> None:
        if not self._watched:
            return
        if not self._announced:
            self._untold.append(event)
            return
        try:
            self._emit(event)
        except BaseException as error:  # it comes out of the run
            self._refused(error)
