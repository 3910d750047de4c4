"""Values that are no step's output, under ids of their own: the items of lists, and what a turn of a loop is given."""

from collections.abc import Sequence

from graph.holdings import Holdings
from graph.identities import Revealed, item_name, literal_name
from graph.lists import Items
from graph.plan import Plan
from graph.resolve import Ref
from graph.tasks import Task


class Givens:
    """All of these of a run."""

    def __init__(self, plan: Plan, holdings: Holdings) -> None:
        self._plan = plan
        self._holdings = holdings
        self._items: dict[Ref, list[Ref]] = {}

    def add(self, task: Task, name: str, value: object) -> Ref:
        """A literal under the name, if that is free, kept for a task."""
        name = self._plan.free_id(name)
        self._plan.ids.add_value(name, Revealed(literal_name(value)))
        self._plan.own(task, [name])
        self._keep(task, name, value)
        return name, 0

    def items(self, task: Task, ref: Ref) -> list[Ref]:
        """The items of a list, kept for a task; of what is no list, itself."""
        value = self._holdings.values[ref[0]][ref[1]]
        if not isinstance(value, Items):
            return [ref]
        refs = self._items.get(ref)
        if refs is None:
            refs = self._items[ref] = [
                (self._plan.free_id(f"{ref[0]}[{ref[1]}][{at}]"), 0) for at in range(len(value.values))
            ]
            for (name, _), known in zip(refs, self.names(ref, len(refs)), strict=True):
                self._plan.ids.add_value(name, known)
        for (name, _), item in zip(refs, value.values, strict=True):
            self._keep(task, name, item)
        return refs

    def names(self, ref: Ref, count: int) -> Sequence[Revealed]:
        """What the items of a list are."""
        named, whole = self._plan.ids.place(ref).items, self._plan.ids.of(ref)
        if named is not None:
            return named
        return [Revealed(whole and item_name(whole, at)) for at in range(count)]

    def _keep(self, task: Task, name: str, value: object) -> None:
        self._plan.settled.add(name)
        self._holdings.keep(name, task)
        self._holdings.put(name, (value,))
