"""The steps of a run: those of the document, and those that are put in the place of others."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from graph.identities import Identities
from graph.loops import Loop, Loops, is_end
from graph.resolve import Graph, Step
from graph.tasks import Phase, Task
from graph.values import Service

if TYPE_CHECKING:
    from graph.active_run import ActiveRun

MOST_NESTED = 1000
"""Composites inside composites; beyond this one surely calls itself."""


class Plan:
    """All steps of one run by their ids, and as tasks those that somebody has asked for."""

    def __init__(self, run: "ActiveRun", services: Mapping[type[Service], str]) -> None:
        self.ids = Identities(services)
        self.tasks: dict[str, Task] = {}
        self.settled: set[str] = set()
        """What is made, or will never be; among that also values that are no step's output."""
        self.listy: set[str] = set()
        """Steps that may give lists."""
        self._run = run
        self._places: dict[str, int] = {}
        self._inner: dict[str, list[str]] = {}
        """What was put in the place of each step."""
        self._left: list[str] = []
        self._loops: dict[str, Loops] = {}
        """The loops among which each end of one stands."""
        self._loop_of: dict[str, Loop] = {}

    def add(self, steps: Sequence[Step], parent: Task | None = None, first: int = 0) -> list[str]:
        """Take in steps, each after its sources. Returns those that are to be made for what they do to the world.

        Args:
            parent: the task in whose place they are put.
            first: the place of the first among everything that is put there.
        """
        if parent is not None and parent.depth >= MOST_NESTED:
            raise RecursionError(f"composites are nested more than {MOST_NESTED} deep; does one call itself?")
        self.ids.add(steps)
        places, listy = self._places, self.listy
        ends: list[str] = []
        acting: list[str] = []
        for at, step in enumerate(steps, first):
            places[step.id] = at
            node = step.node
            if node.gives_lists or (listy and any(source in listy for source, _ in step.links.values())):
                listy.add(step.id)
            if node.sink:
                acting.append(step.id)
            elif node.loop and is_end(step):
                ends.append(step.id)
        if parent is not None:
            self.own(parent, (step.id for step in steps))
        if ends:
            loops = Loops(steps)
            self._loops |= dict.fromkeys(ends, loops)
            acting = loops.acting()
        return acting

    def task(self, step_id: str) -> Task:
        """A step as a task."""
        task = self.tasks.get(step_id)
        if task is None:
            step, place = self.ids.steps[step_id], self._places[step_id]
            parent = None if step.parent is None else self.tasks[step.parent]
            rank, depth = ((place,), 0) if parent is None else ((*parent.rank, place), parent.depth + 1)
            acts = step.node.sink or (step.node.loop is not None and is_end(step) and self._loops[step_id].acts(step))
            phase = Phase.LOOK_UP if acts or step_id in self.ids.final else Phase.NAME
            task = self.tasks[step_id] = Task(step, rank, self._run, step.node.lane, phase, parent, depth, acts)
        return task

    def own(self, task: Task, step_ids: Iterable[str]) -> None:
        """Count steps or values as put in the place of a step."""
        self._inner.setdefault(task.step.id, []).extend(step_ids)

    def loop(self, end: Step) -> Loop:
        """The loop that a step ends. Raises ValueError."""
        loop = self._loop_of.get(end.id)
        if loop is None:
            loop = self._loop_of[end.id] = self._loops[end.id].of(end)
        return loop

    def sources(self, step: Step) -> list[str]:
        """What a step may come to need; for a loop that is also what only lies in it, and is not linked to its end."""
        sources = [source for source, _ in step.links.values()]
        if step.node.loop is not None and is_end(step):
            with suppress(ValueError):  # which will be said when its turn comes
                sources += self.loop(step).outside
        return sources

    def targets(self, graph: Graph) -> list[str]:
        """What has to be made: in place of what acts on the world inside a loop, the end of that loop."""
        loops = next(iter(self._loops.values()), None)
        if loops is None:
            return list(graph.targets)
        sinks = {step.id for step in graph.steps if step.node.sink}
        return list(dict.fromkeys(loops.acting_for(each) if each in sinks else each for each in graph.targets))

    def is_inside(self, step_id: str, task: Task) -> bool:
        """Whether a step was put in the place of another, or of one inside of it."""
        around = self.tasks[step_id].parent
        while around is not None and around is not task:
            around = around.parent
        return around is task

    def free_id(self, name: str) -> str:
        """An id that no step has: the name, if it is free."""
        while name in self.ids.static:
            name += "'"
        return name

    def leave_behind(self, step_id: str, needed: Iterable[str] = ()) -> None:
        """What was put in the place of a step is done with, but for what is still needed. `forget` lets go of it."""
        inner = self._inner.pop(step_id, [])
        kept = set(needed)
        self._inner[step_id] = [each for each in inner if each in kept]
        self._left += [each for each in inner if each not in kept]

    def forget(self) -> None:
        """Let go of what is known of steps that were left behind, so that a loop may go on for ever."""
        left, self._left = self._left, []
        for step_id in left:  # which grows
            task = self.tasks.get(step_id)
            if task is None or task.phase is Phase.DONE:
                left += self._inner.pop(step_id, ())
                self.tasks.pop(step_id, None)
                self.settled.discard(step_id)
                self.listy.discard(step_id)
                self._places.pop(step_id, None)
                self._loops.pop(step_id, None)
                self._loop_of.pop(step_id, None)
                self.ids.forget(step_id)
