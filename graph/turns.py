"""A loop that goes on while its condition holds, turn by turn."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from graph.calling import fitting
from graph.errors import WrongInput
from graph.lists import Blocked, Items
from graph.loops import Loop
from graph.resolve import Ref
from graph.store import Outputs

if TYPE_CHECKING:
    from graph.givens import Givens
    from graph.plan import Plan
    from graph.tasks import Task


class Turns:
    """What such a loop carries, and how far it is."""

    def __init__(self, task: "Task", loop: Loop, carried: Mapping[str, Ref], most: int) -> None:
        self.loop = loop
        self.carried = dict(carried)
        self.most = most
        self.count = 0
        """How many turns have been made."""
        self.is_tested = False
        """Whether the condition of this turn is known to hold."""
        self._task = task
        self._ends: Mapping[str, Ref] = {}
        self._acting: Sequence[str] = ()

    def begin(self, plan: "Plan", givens: "Givens") -> tuple[list[str], list[str]]:
        """Put the steps of a turn in place. Returns what its condition needs, and what the turn may need."""
        task, loop = self._task, self.loop
        before = [source for source, _ in self.carried.values()]
        plan.leave_behind(task.step.id, before)
        name = f"{task.step.id}.{self.count}"
        turn = loop.turn(name, {"turn": givens.add(task, f"{name}[turn]", self.count)} | self.carried, plan.ids.static)
        self._acting = plan.add(turn.steps, task, self.count * len(turn.steps))
        self._ends, self.is_tested = turn.ends, False
        condition = turn.ends.get("condition")
        following = [turn.ends[name][0] for name in self.carried if name in turn.ends]
        return [condition[0]] if condition else [], [*before, *following, *self._acting, *loop.outside]

    def condition(self, values: Mapping[str, Outputs]) -> bool | Blocked:
        """Whether the turn is to be made. Raises WrongInput, or RuntimeError when there were too many."""
        end, link = self.loop.end, self._ends.get("condition")
        value = values[link[0]][link[1]] if link else end.literals["condition"]
        if isinstance(value, Blocked):
            return value
        if isinstance(value, Items):
            raise WrongInput("condition", f"expected true or false, found a list of {len(value.values)}")
        holds = cast(bool, fitting(end.node.inputs["condition"], value))
        if holds and self.count == self.most:
            raise RuntimeError(f"its condition still holds after {self.most} turns; raise most_turns if that is meant")
        return holds

    def make(self) -> list[str]:
        """Make the turn. Returns what is needed for it."""
        self.is_tested = True
        self.carried |= {name: ref for name, ref in self._ends.items() if name in self.carried}
        return [*(source for source, _ in self.carried.values()), *self._acting]
