"""What a graph means, said as plainly as possible: every step is evaluated when it is asked for, nothing is kept.

Beside every value stands its name: what it was made of, as far as that is what reuse goes by.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from graph.lists import Blocked, Items
from graph.recording import Link, recording
from graph.resolve import Graph, Ref, Step
from graph.values import Ui, Value

Name = Any
"""What a value is made of, as nested tuples; None where it may be another one every time."""


@dataclass(frozen=True)
class Found:
    """A value and its name; for a list, also the names of its items."""

    value: Any
    name: Name
    items: "tuple[Found, ...]" = ()


Given = Callable[[], Found]


class Unavailable(Exception):
    """It failed, or something that it needs did."""


@dataclass
class Log:
    """What was done: calls of nodes with the names of what they made, and what was shown."""

    calls: list[tuple[Name, str]] = field(default_factory=list[Any])
    made: set[Name] = field(default_factory=set[Any])
    shown: list[str] = field(default_factory=list[str])


class Reading:
    """Steps, and what comes to them from outside."""

    def __init__(
        self, steps: Iterable[Step], log: Log, given: Mapping[Ref, Given] | None = None, listy: Iterable[Ref] = ()
    ) -> None:
        self.steps = {step.id: step for step in steps}
        self.log = log
        self.given = dict(given or {})
        self.listy = set(listy)
        self.outer: Reading | None = None
        self.failed: set[str] = set()
        self._made: dict[str, tuple[Found, ...] | None] = {}

    def at(self, ref: Ref) -> Found:
        if ref in self.given:
            return self.given[ref]()
        if self.outer is not None and not self._inside(ref[0]):
            return self.outer.at(ref)
        return self.outputs(ref[0])[ref[1]]

    def outputs(self, step_id: str) -> tuple[Found, ...]:
        if step_id not in self._made:
            self._made[step_id] = None
            try:
                step = self.steps[step_id]
                self._made[step_id] = self._loop(step) if step.node.loop in ("each", "while") else self._step(step)
            except Unavailable:
                pass
        made = self._made[step_id]
        if made is None:
            raise Unavailable
        return made

    def may_be_list(self, ref: Ref) -> bool:
        if ref in self.given:
            return ref in self.listy
        if self.outer is not None and not self._inside(ref[0]):
            return self.outer.may_be_list(ref)
        step = self.steps[ref[0]]
        return step.node.gives_lists or any(self.may_be_list(source) for source in step.links.values())

    def _inside(self, step_id: str) -> bool:
        """Whether a step depends on what is different in this turn of a loop."""
        return any(
            source in self.given or self._inside(source[0])
            for source in self.steps[step_id].links.values()
            if source[0] in self.steps
        ) or any(ref[0] == step_id for ref in self.given)

    # Steps.

    def _step(self, step: Step) -> tuple[Found, ...]:
        inputs = {name: self._later(ref) for name, ref in step.links.items()}
        listy = {name for name, ref in step.links.items() if self.may_be_list(ref)}
        return self._apply(step, inputs, listy, step.id)

    def _later(self, ref: Ref) -> Given:
        return lambda: self.at(ref)

    def _apply(self, step: Step, inputs: Mapping[str, Given], listy: set[str], blame: str) -> tuple[Found, ...]:
        node = step.node
        needed = [
            name
            for name in inputs
            if not node.composite
            or node.inputs[name].known
            or node.inputs[name].many
            or (name in listy and not node.inputs[name].whole)
        ]
        came = all_of([inputs[name] for name in needed])
        known = dict(zip(needed, came, strict=True))
        if any(
            isinstance(part, Blocked)
            for name, found in known.items()
            if not node.composite or node.inputs[name].known or node.inputs[name].many
            for part in ((found.value,) if not node.inputs[name].many else parts_of(found.value))
        ):
            return (Found(Blocked(), None),) * len(node.outputs)
        mapped = {
            name: found
            for name, found in known.items()
            if isinstance(found.value, Items) and not node.inputs[name].many and not node.inputs[name].whole
        }
        if mapped:
            return self._map(step, inputs, listy, blame, mapped, known)
        if node.composite:
            return self._expand(step, inputs, listy, blame, known)
        return self._call(step, known, blame)

    def _map(
        self,
        step: Step,
        inputs: Mapping[str, Given],
        listy: set[str],
        blame: str,
        mapped: Mapping[str, Found],
        known: Mapping[str, Found],
    ) -> tuple[Found, ...]:
        lengths = [len(found.items) for found in mapped.values()]
        count = max(lengths) if min(lengths) else 0
        inner = Reading((), self.log)

        def part(at: int) -> tuple[Found, ...]:
            items = {name: found.items[min(at, len(found.items) - 1)] for name, found in mapped.items()}
            given = {**inputs, **{name: constant(item) for name, item in items.items()}}
            return inner._apply(step, given, listy - set(mapped), step.id)

        try:
            parts = all_of([lambda at=at: part(at) for at in range(count)])
        except Unavailable:
            if inner.failed:
                self.failed.add(blame)
            raise
        key = None if step.node.composite or step.node.cutoff else key_of(step, known)
        return tuple(
            gathered([part[at] for part in parts], None if key is None else ("out", key, at))
            if key is not None or step.node.composite or step.node.cutoff
            else unnamed(gathered([part[at] for part in parts]))
            for at in range(len(step.node.outputs))
        )

    def _call(self, step: Step, known: Mapping[str, Found], blame: str) -> tuple[Found, ...]:
        node = step.node
        key = key_of(step, known)
        arguments = dict(step.literals)
        for name, found in known.items():
            declared = node.inputs[name]
            value = parts_of(found.value) if declared.many else found.value
            arguments[name] = declared.literal.validate(value) if declared.literal else value
        self.log.calls.append((key, node.name))
        try:
            returned = node.function(**arguments)
        except Exception as error:
            self.failed.add(blame)
            raise Unavailable from error
        self.log.made.add(key)
        if isinstance(returned, Ui):
            self.log.shown.append(cast(Any, returned).text)
            return ()
        if isinstance(returned, Blocked):
            returned = (returned,) * len(node.outputs)
        elif not node.fields:
            returned = (returned,)
        return tuple(
            self._named(node.cutoff, value, output.many, key, at)
            for at, (value, output) in enumerate(zip(cast("tuple[Any, ...]", returned), node.outputs, strict=True))
        )

    def _named(self, cutoff: bool, value: Any, many: bool, key: Name, at: int) -> Found:
        own = None if key is None else ("out", key, at)
        if isinstance(value, Items):  # passed on as it came
            value, many = value.values, True
        if not many or isinstance(value, Blocked):
            return Found(value, ("content", value) if cutoff and own else own)
        items = tuple(
            Found(item, ("content", item) if cutoff and own else own and ("item", own, place))
            for place, item in enumerate(value)
        )
        return Found(Items(tuple(value)), ("content", tuple(value)) if cutoff and own else own, items)

    def _expand(
        self, step: Step, inputs: Mapping[str, Given], listy: set[str], blame: str, known: Mapping[str, Found]
    ) -> tuple[Found, ...]:
        node = step.node
        recorder = Recorder()
        given: dict[Ref, Given] = {}
        arguments = dict(step.literals)
        seen: dict[int, Found] = {}
        for name, later in inputs.items():
            if node.inputs[name].many:
                found = known[name]
                items = found.items if isinstance(found.value, Items) else (found,)
                arguments[name] = [Link(f"<{name}", at, recorder) for at in range(len(items))]
                given |= {(f"<{name}", at): constant(item) for at, item in enumerate(items)}
            elif node.inputs[name].known:
                value = known[name].value
                declared = node.inputs[name]
                arguments[name] = declared.literal.validate(value) if declared.literal else value
                if isinstance(value, Value):
                    seen[id(value)] = known[name]
            else:
                arguments[name] = Link(f"<{name}", 0, recorder)
                given[f"<{name}", 0] = later
        recorder.seen = seen
        try:
            with recording(recorder):
                result = node.function(**arguments)
        except Exception as error:
            self.failed.add(blame)
            raise Unavailable from error
        given |= {(f"={at}", 0): constant(found) for at, found in seen.items()}
        inner = Reading(recorder.steps, self.log, given, {(f"<{name}", 0) for name in listy})
        results = cast("tuple[Any, ...]", result) if node.fields else (result,) * bool(node.outputs)
        if isinstance(result, Blocked):
            return (literal(result),) * len(node.outputs)

        def one(item: Any) -> Found:
            if isinstance(item, Link):
                return inner.at((item.step, item.output))
            return seen.get(id(item)) or literal(item)

        def output(item: Any, many: bool) -> Found:
            if many and isinstance(item, list):
                return gathered(all_of([lambda each=each: one(each) for each in cast("list[Any]", item)]))
            return one(item)

        try:
            return all_of(
                [
                    *(
                        lambda item=item, many=output_.many: output(item, many)
                        for item, output_ in zip(results, node.outputs, strict=True)
                    ),
                    *(lambda at=each.id: inner.outputs(at) for each in recorder.steps if each.node.sink),
                ]
            )[: len(node.outputs)]
        except Unavailable:
            if inner.failed:
                self.failed.add(blame)
            raise

    # Loops.

    def _loop(self, end: Step) -> tuple[Found, ...]:
        start = self.steps[end.links["loop"][0]]
        failed = set[str]()
        try:
            return self._each(end, start, failed) if end.node.loop == "each" else self._while(end, start, failed)
        except Unavailable:
            if failed:
                self.failed.add(end.id)
            raise

    def _turn(self, start: Step, given: list[tuple[Given, bool]], failed: set[str]) -> "Reading":
        refs: list[Ref] = [(start.id, at) for at in range(1, len(given) + 1)]
        later = {ref: each for ref, (each, _) in zip(refs, given, strict=True)}
        listy = {ref for ref, (_, may) in zip(refs, given, strict=True) if may}
        turn = Reading(self.steps.values(), self.log, {**later, (start.id, 0): constant(literal("loop"))}, listy)
        turn.outer = self
        turn.failed = failed
        return turn

    def _begun(self, start: Step, name: str) -> tuple[Given, bool]:
        link = start.links.get(name)
        if link is None:
            return constant(literal(start.literals.get(name))), False
        return once(self._later(link)), self.may_be_list(link)

    def _each(self, end: Step, start: Step, failed: set[str]) -> tuple[Found, ...]:
        link = start.links.get("items")
        if link is None:
            items = tuple(literal(item) for item in cast("list[Any]", start.literals["items"]))
        else:
            found = self.at(link)
            if isinstance(found.value, Blocked):
                return (Found(Blocked(), None),) * len(end.node.outputs)
            items = found.items if isinstance(found.value, Items) else (found,)
        carried, may = self._begun(start, "carried")
        results: list[Given] = []
        acts: list[Given] = []
        for at, item in enumerate(items):
            turn = self._turn(
                start,
                [(constant(item), False), (constant(literal(at)), False), (constant(literal(len(items))), False)]
                + [(carried, may)],
                failed,
            )
            if "result" in end.links:
                results.append(turn._later(end.links["result"]))
            elif end.literals.get("result") is not None:
                results.append(constant(literal(end.literals["result"])))
            if "carried" in end.links:
                carried, may = once(turn._later(end.links["carried"])), turn.may_be_list(end.links["carried"])
            acts += turn._acts(end)
        found = all_of([*results, carried, *acts])
        return gathered(found[: len(results)]), found[len(results)]

    def _while(self, end: Step, start: Step, failed: set[str]) -> tuple[Found, ...]:
        names = ("state", "state_2", "state_3")
        carried = [self._begun(start, name) for name in names]
        count = 0
        while True:
            turn = self._turn(start, [(constant(literal(count)), False), *carried], failed)
            if "condition" in end.links:
                value = turn.at(end.links["condition"]).value
                if isinstance(value, Blocked):
                    return (Found(Blocked(), None),) * len(end.node.outputs)
                try:
                    holds = cast(Any, end.node.inputs["condition"].literal).validate(value)
                except ValueError as error:
                    failed.add(end.id)
                    raise Unavailable from error
            else:
                holds = end.literals["condition"]
            if not holds:
                break
            if count == end.literals["most_turns"]:
                failed.add(end.id)
                raise Unavailable
            following = [
                (once(turn._later(end.links[name])), turn.may_be_list(end.links[name])) if name in end.links else before
                for name, before in zip(names, carried, strict=True)
            ]
            all_of([*(later for later, _ in following), *turn._acts(end)])
            carried = following
            count += 1
        return (*all_of([later for later, _ in carried]), literal(count))

    def _acts(self, end: Step) -> list[Given]:
        """What a turn does to the world: itself, and in the loops that are inside of it."""
        found: dict[str, None] = {}
        for step in self.steps.values():
            chain = [step.id, *loops_around(self.steps, step.id)]
            if step.node.sink and end.id in chain:
                found[chain[chain.index(end.id) - 1]] = None
        return [cast(Given, lambda at=at: self.outputs(at)) for at in found]


def loops_around(steps: Mapping[str, Step], step_id: str) -> list[str]:
    """The ends of the loops that a step is in, the innermost first."""
    end = loop_of(steps, step_id)
    return [end, *loops_around(steps, end)] if end else []


def loop_of(steps: Mapping[str, Step], step_id: str) -> str | None:
    """The end of the innermost loop that a step is in: here every loop has a start of its own."""
    found: list[str] = []

    def walk(at: str, skip: frozenset[str]) -> None:
        step = steps[at]
        if step.node.loop in ("each", "while"):
            skip |= {step.links["loop"][0]}
        if step.node.loop == "start" and at not in skip:
            found.extend(each.id for each in steps.values() if each.links.get("loop") == (at, 0) and each.node.loop)
        for source, _ in step.links.values():
            walk(source, skip)

    walk(step_id, frozenset())
    return found[0] if found else None


class Recorder:
    """Takes down what a composite calls."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.seen: dict[int, Found] = {}

    def add(self, node: Any, arguments: Mapping[str, object], title: str | None = None) -> tuple[Link, ...]:
        step_id = str(len(self.steps))
        links: dict[str, Ref] = {}
        literals: dict[str, object] = {}
        for name, declared in node.inputs.items():
            given = arguments.get(name, declared.default)
            if isinstance(given, Link):
                links[name] = given.step, given.output
            elif id(given) in self.seen:
                links[name] = f"={id(given)}", 0
            elif declared.value is None:
                literals[name] = given
        self.steps.append(Step(step_id, node, literals, links, {}))
        return tuple(Link(step_id, at, self) for at in range(len(node.outputs)))


def all_of(later: "list[Callable[[], Any]]") -> tuple[Any, ...]:
    """All of these, also those after one that is not available."""
    found: list[Any] = []
    for each in later:
        try:
            found.append(each())
        except Unavailable:
            found.append(Unavailable)
    if Unavailable in found:
        raise Unavailable
    return tuple(found)


def constant(found: Found) -> Given:
    return lambda: found


def once(later: Given) -> Given:
    return later


def literal(value: Any) -> Found:
    return Found(value, ("literal", type(value).__name__, value))


def parts_of(value: Any) -> list[Any]:
    return list(value.values) if isinstance(value, Items) else [value]


def gathered(parts: "Iterable[Found]", name: Name = None) -> Found:
    """A list of these; lists among them are put end to end."""
    parts = list(parts)
    items = [item for part in parts for item in (part.items if isinstance(part.value, Items) else (part,))]
    if name is None and all(part.name is not None for part in parts):
        name = ("list", *(part.name for part in parts))
    return Found(Items(tuple(item.value for item in items)), name, tuple(items))


def unnamed(found: Found) -> Found:
    return Found(found.value, None, found.items)


def key_of(step: Step, known: Mapping[str, Found]) -> Name:
    if step.node.impure or any(found.name is None for found in known.values()):
        return None
    literals = sorted((name, type(value).__name__, str(value)) for name, value in step.literals.items())
    return step.node.name, tuple(literals), tuple(sorted((name, known[name].name) for name in known))


def read(graph: Graph) -> tuple[dict[str, tuple[Any, ...]], set[str], Log]:
    """The outputs of the targets that there are, the steps that failed, and what was done."""
    log = Log()
    reading = Reading(graph.steps, log)
    found: dict[str, tuple[Any, ...]] = {}
    steps = {step.id: step for step in graph.steps}
    for target in graph.targets:
        if steps[target].node.sink and (ends := loops_around(steps, target)):
            target = ends[-1]
        try:
            outputs = reading.outputs(target)
        except Unavailable:
            continue
        if target in graph.targets:
            found[target] = tuple(each.value for each in outputs)
    return found, reading.failed, log
