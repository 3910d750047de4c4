"""What a run has made, for as long as somebody may take it.

Who needs the outputs of a step *keeps* them. Who may come to need them *holds* them: until anybody wants the step, what
it would need itself is held with it, for a branch that is taken late needs what others have used long before.
"""

from collections import defaultdict
from collections.abc import Iterable

from graph.plan import Plan
from graph.resolve import Step
from graph.store import Outputs
from graph.tasks import Task


class Holdings:
    """Outputs by step id, and how many times each is kept or held."""

    def __init__(self, plan: Plan) -> None:
        self.values: dict[str, Outputs] = {}
        self._plan = plan
        self._uses: defaultdict[str, int] = defaultdict(int)
        self._held: set[str] = set()
        """Steps that nobody wants yet, and whose inputs are held with them."""
        self._drops: list[str] = []

    def keep(self, step_id: str, task: Task | None = None) -> None:
        """Keep the outputs of a step, for a task or for good."""
        self._uses[step_id] += 1
        if task is not None:
            task.taken.append(step_id)

    def hold(self, step_id: str, task: Task) -> None:
        """Hold the outputs of a step for a task."""
        task.taken.append(step_id)
        self._uses[step_id] += 1
        stack = [step_id]
        while stack:
            at = stack.pop()
            if at in self._plan.settled or at in self._held:
                continue
            known = self._plan.tasks.get(at)
            if known is None or not known.wanted:
                self._held.add(at)
                for source in self._plan.sources(self._plan.ids.steps[at]):
                    self._uses[source] += 1
                    stack.append(source)

    def hold_inputs(self, task: Task) -> None:
        """Hold what a step may come to need, when it is not known yet what that is."""
        if not task.keeps_inputs:
            task.keeps_inputs = True
            for source in self._plan.sources(task.step):
                self.hold(source, task)

    def put(self, step_id: str, outputs: Outputs) -> None:
        """The outputs of a step are there; they stay if anybody keeps them."""
        if step_id in self._uses:
            self.values[step_id] = outputs

    def release(self, step_ids: Iterable[str]) -> None:
        """Somebody needs these no longer. They go when nothing can go on any more: it may be that others take over."""
        self._drops += step_ids

    def close(self, step: Step) -> None:
        """A step is settled: what was held because of it is not needed for it."""
        if step.id in self._held:
            self._held.discard(step.id)
            self._drops += self._plan.sources(step)

    def drop(self) -> None:
        """Let go of what was released and is not kept otherwise."""
        stack, self._drops = self._drops, []
        uses, tasks = self._uses, self._plan.tasks
        while stack:
            at = stack.pop()
            uses[at] -= 1
            if uses[at] > 0:
                continue
            del uses[at]
            self.values.pop(at, None)
            task = tasks.get(at)
            if task is not None and not task.wanted:  # it was looked into, and that is all
                stack += task.taken
                task.taken, task.keeps_inputs = [], False
            if at in self._held and not (task and task.wanted):
                self._held.discard(at)
                stack += self._plan.sources(self._plan.ids.steps[at])
