"""What is put in the place of a step: one step for each item of a list, what a composite calls, the turns of a loop."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import cast

from graph.calling import checked, fitting
from graph.expand import expand
from graph.folders import Folders
from graph.givens import Givens
from graph.holdings import Holdings
from graph.identities import Constant, Gathered, Result, Revealed
from graph.keys import Key
from graph.lists import Blocked, Items
from graph.loops import Loop, is_end
from graph.plan import Plan
from graph.resolve import Ref, Step
from graph.store import Outputs
from graph.tasks import Inside, Task
from graph.turns import Turns
from graph.values import Service

Find = Callable[[type[Service]], Service]


class Unfolding:
    """Puts steps in the place of steps, and puts together what these make."""

    def __init__(self, plan: Plan, holdings: Holdings, find: Find, folders: Folders) -> None:
        self.givens = Givens(plan, holdings)
        self._plan = plan
        self._holdings = holdings
        self._find = find
        self._folders = folders

    def needs(self, step: Step) -> list[str]:
        """What has to be there before a composite or a loop is unfolded."""
        if is_end(step):
            return [source for source, _ in self._plan.loop(step).settings]
        listy, inputs = self._plan.listy, step.node.inputs
        return [
            source
            for name, (source, _) in step.links.items()
            if inputs[name].known or inputs[name].many or (source in listy and not inputs[name].whole)
        ]

    def blocked(self, step: Step) -> Blocked | None:
        """What keeps a step from being run, among what has come to it."""
        for name, value in self._came(step):
            declared = step.node.inputs.get(name)
            if declared is not None and step.node.composite and not (declared.known or declared.many):
                continue  # which it may not use
            if isinstance(value, Blocked):
                return value
            if isinstance(value, Items) and declared is not None and declared.many:
                found = next((item for item in value.values if isinstance(item, Blocked)), None)
                if found is not None:
                    return found
        return None

    def lists(self, step: Step) -> list[str]:
        """The inputs to which lists have come, of which the step takes the items one by one."""
        inputs = step.node.inputs
        return [
            name
            for name, value in (() if is_end(step) else self._came(step))
            if isinstance(value, Items) and not inputs[name].many and not inputs[name].whole
        ]

    def unfold(self, task: Task, lists: Sequence[str] = ()) -> Inside:
        """Put steps in the place of one.

        Args:
            lists: of these inputs it takes the items one by one.
        """
        if lists:
            return self._mapped(task, lists)
        if is_end(task.step):
            return self._looped(task, self._plan.loop(task.step))
        return self._expanded(task)

    def outputs(self, task: Task, inside: Inside) -> tuple[Outputs, list[Revealed]]:
        """The outputs of a step whose results are there, and what they are. Raises WrongResult."""
        step = task.step
        outputs = tuple(self._value(result) for result in inside.results)
        if not is_end(step):  # whose outputs may be left empty
            checked(step.node, outputs, lists=step.id in self._plan.listy)
        return outputs, [self._name(step, at, result) for at, result in enumerate(inside.results)]

    def _came(self, step: Step) -> Iterator[tuple[str, object]]:
        """What has come by the links of a step so far, by input; for a loop, what has to be known of it."""
        values = self._holdings.values
        links = step.links.items()
        if is_end(step):
            links = [("", ref) for ref in self._plan.loop(step).settings]
        for name, (source, output) in links:
            if source in values:
                yield name, values[source][output]

    # Lists.

    def _mapped(self, task: Task, lists: Sequence[str]) -> Inside:
        """One step for each item. Shorter lists repeat their last item; of an empty one nothing comes."""
        step = task.step
        items = {name: self.givens.items(task, step.links[name]) for name in lists}
        lengths = [len(refs) for refs in items.values()]
        parts: list[Step] = []
        for at in range(max(lengths) if min(lengths) else 0):
            links = {**step.links, **{name: refs[min(at, len(refs) - 1)] for name, refs in items.items()}}
            part_id = self._plan.free_id(f"{step.id}.{at}")
            parts.append(replace(step, id=part_id, links=links, parent=step.id))
        results = tuple(Gathered(tuple((part.id, at) for part in parts)) for at in range(len(step.node.outputs)))
        return Inside(results, self._plan.add(parts, task), pieces=len(parts))

    # Composites.

    def _expanded(self, task: Task) -> Inside:
        """Run a composite's function; it must be the same graph whenever it has the same key."""
        step, node = task.step, task.step.node
        known = dict(step.literals)
        items: dict[str, list[Ref]] = {}
        for name, (source, output) in step.links.items():
            declared = node.inputs[name]
            if declared.many:
                items[name] = self.givens.items(task, (source, output))
            if declared.known:
                known[name] = fitting(declared, self._holdings.values[source][output])
        services = {name: self._find(kind) for name, kind in node.services.items()}
        expansion = expand(step, known, services, self._folders, items=items, taken=self._plan.ids.static)
        acting = self._plan.add(expansion.steps, task)
        self._check(task, expansion.steps)
        return Inside(expansion.results, acting, ticks=sum(inner.node.progress for inner in expansion.steps))

    def _check(self, task: Task, steps: Sequence[Step]) -> None:
        step, static = task.step, self._plan.ids.static
        if static[step.id] is None or step.node.sink:
            return
        for inner in steps:
            reason = _unforeseen(step, inner, static[inner.id])
            if reason and inner.id not in self._plan.ids.nameless:
                raise TypeError(f"{step.node.name} is declared to depend on its inputs alone, but it {reason}")
        around: Task | None = task
        inside = {static[inner.id] for inner in steps if inner.node.composite}
        while around is not None:
            if around.step.node.composite and static[around.step.id] in inside:
                raise RecursionError(f"{around.step} expands into itself, with the very same inputs")
            around = around.parent

    # Loops.

    def _looped(self, task: Task, loop: Loop) -> Inside:
        """All turns of a loop over items; of one with a condition there are none yet."""
        step = task.step
        carried = {name: self._given(task, loop.start, name) for name in loop.carried}
        if step.node.loop == "while":
            most = fitting(step.node.inputs["most_turns"], self._setting(step, "most_turns"))
            return Inside(turns=Turns(task, loop, carried, cast(int, most)))
        items = self._items(task, loop.start)
        count = self.givens.add(task, f"{step.id}[count]", len(items))
        acting: list[str] = []
        results: list[Ref | Constant] = []
        for at, item in enumerate(items):
            name = f"{step.id}.{at}"
            given = {"item": item, "item_index": self.givens.add(task, f"{name}[index]", at), "item_count": count}
            turn = loop.turn(name, given | carried, self._plan.ids.static)
            acting += self._plan.add(turn.steps, task, at * len(turn.steps))
            if "result" in turn.ends:
                results.append(turn.ends["result"])
            elif step.literals.get("result") is not None:
                results.append(Constant(step.literals["result"]))
            carried |= {name: ref for name, ref in turn.ends.items() if name in carried}
        return Inside((Gathered(tuple(results)), *carried.values()), acting, pieces=len(items))

    def _setting(self, step: Step, name: str) -> object:
        link = step.links.get(name)
        return self._holdings.values[link[0]][link[1]] if link else step.literals[name]

    def _items(self, task: Task, start: Step) -> list[Ref]:
        link = start.links.get("items")
        if link is not None:
            return self.givens.items(task, link)
        given = cast("list[object]", start.literals["items"])
        return [self.givens.add(task, f"{task.step.id}[items][{at}]", item) for at, item in enumerate(given)]

    def _given(self, task: Task, start: Step, name: str) -> Ref:
        return start.links.get(name) or self.givens.add(task, f"{task.step.id}[{name}]", start.literals.get(name))

    # Results.

    def _value(self, result: Result) -> object:
        if isinstance(result, Constant):
            return result.value
        if isinstance(result, tuple):
            return self._holdings.values[result[0]][result[1]]
        items: list[object] = []
        for source in result.sources:
            value = self._value(source)
            items += value.values if isinstance(value, Items) else (value,)
        return Items(tuple(items))

    def _name(self, step: Step, at: int, result: Result) -> Revealed:
        """What an output is, and where the store has it, as far as it does."""
        ids = self._plan.ids
        name = ids.name_of(step.id, at, result)
        if not isinstance(result, Gathered):
            return name
        if ids.is_open(step.id):
            name = Revealed(ids.of((step.id, at)))
        items: list[Revealed] = []
        for place, source in enumerate(result.sources):
            if isinstance(source, Constant):
                items.append(Revealed(ids.constant_name(step.id, source.value, at, place)))
            elif isinstance(value := self._holdings.values[source[0]][source[1]], Items):
                items += self.givens.names(source, len(value.values))
            else:
                items.append(ids.place(source))
        return replace(name, items=tuple(items))


def _unforeseen(step: Step, inner: Step, key: Key | None) -> str | None:
    """What a step inside a composite depends on that the composite's key does not tell."""
    if key is None and not inner.node.sink:
        return f"calls {inner.node.name}, whose result may differ from run to run: declare it impure"
    unknown = set(inner.files.values()).difference(step.files.values())
    if unknown:
        names = ", ".join(name for name, file in inner.files.items() if file in unknown)
        return f"chooses a file itself ({names} of {inner.node.name}): take the name as an input, or declare it impure"
    return None
