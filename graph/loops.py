"""Loops in a document: what lies between a start and an end is run once for each turn.

A turn is a copy of the steps between, in which the outputs of the start are replaced by those of this turn. Its steps
have keys of their own, so a loop that is run again with one item changed runs that turn alone.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise, permutations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graph.resolve import Ref, Step


@dataclass(frozen=True, slots=True)
class Turn:
    """The steps of one turn, and where what the end takes comes from."""

    steps: "tuple[Step, ...]"
    ends: "Mapping[str, Ref]"


@dataclass(frozen=True)
class Loop:
    """The end of a loop, its start, and what lies between."""

    end: "Step"
    start: "Step"
    between: "tuple[Step, ...]"

    @cached_property
    def carried(self) -> tuple[str, ...]:
        """The inputs of the end that the start gives to the next turn."""
        given = {output.name for output in self.start.node.outputs}
        return tuple(name for name in self.end.node.inputs if name in self.start.node.inputs and name in given)

    @cached_property
    def settings(self) -> "tuple[Ref, ...]":
        """What has to be known before the first turn."""
        links = self.start.links.get("items"), self.end.links.get("most_turns")
        return tuple(link for link in links if link is not None)

    @cached_property
    def outside(self) -> tuple[str, ...]:
        """What every turn may need from outside of the loop."""
        inside = {self.start.id, *(step.id for step in self.between)}
        sources = (source for step in (*self.between, self.end) for source, _ in step.links.values())
        return tuple(dict.fromkeys(source for source in sources if source not in inside))

    def turn(self, name: str, given: "Mapping[str, Ref]", taken: Container[str] = ()) -> Turn:
        """Copy what lies between, under ids that begin with `name`.

        Args:
            given: what stands in place of the start's outputs, by their names.
            taken: ids that no step must have.
        """
        places = {output.name: at for at, output in enumerate(self.start.node.outputs)}
        moved: dict[Ref, Ref] = {(self.start.id, places[output]): ref for output, ref in given.items()}
        names: dict[str, str] = {}
        for step in self.between:
            names[step.id] = f"{name}.{step.id}"
            while names[step.id] in taken:  # a document may use such ids too
                names[step.id] += "'"

        def links(step: "Step") -> "dict[str, Ref]":
            return {
                given: (names[ref[0]], ref[1]) if ref[0] in names else moved.get(ref, ref)
                for given, ref in step.links.items()
            }

        steps = tuple(replace(step, id=names[step.id], links=links(step), parent=self.end.id) for step in self.between)
        return Turn(steps, {given: ref for given, ref in links(self.end).items() if given != "loop"})


class Loops:
    """The loops among steps, each of which comes after its sources."""

    def __init__(self, steps: "Sequence[Step]") -> None:
        self._steps = {step.id: step for step in steps}
        self._ends: dict[str, Step] = {}
        """The end of each loop, by its start."""
        self._around: dict[str, frozenset[str]] = {}
        """The starts of the loops that each step is in."""
        self._past: dict[str, frozenset[str]] = {}
        """The starts of the loops that have ended before each step, or at it."""
        self._between: dict[str, list[Step]] = {}
        self.problems: dict[str, str] = {}
        """What is wrong with a loop, by its end."""
        for step in steps:
            if is_end(step):
                self._pair(step)
        self._find_out()
        for step in steps:
            for start in self._around[step.id]:
                self._between.setdefault(start, []).append(step)
            self._check(step)

    def of(self, end: "Step") -> Loop:
        """The loop that a step ends. Raises ValueError."""
        if end.id in self.problems:
            raise ValueError(self.problems[end.id])
        start = self._steps[end.links["loop"][0]]
        return Loop(end, start, tuple(self._between.get(start.id, ())))

    def acts(self, end: "Step") -> bool:
        """Whether something inside of a loop acts on the world."""
        start = end.links["loop"][0] if end.id not in self.problems else ""
        return any(step.node.sink for step in self._between.get(start, ()))

    def acting(self) -> list[str]:
        """The steps to be made for what they do to the world: in place of those in loops, the outermost end."""
        return list(dict.fromkeys(self.acting_for(step.id) for step in self._steps.values() if step.node.sink))

    def acting_for(self, step_id: str) -> str:
        """The step itself, or the end of the outermost loop that it is in."""
        around = self._inwards(step_id)
        return around[0].id if around else step_id

    def _inwards(self, step_id: str) -> "list[Step]":
        """The ends of the loops that a step is in, the outermost first."""
        around = self._around[step_id]
        ends = [end for start, end in self._ends.items() if start in around]
        return sorted(ends, key=lambda end: len(self._around[end.id]))

    def _pair(self, end: "Step") -> None:
        start = self._steps.get(end.links["loop"][0]) if "loop" in end.links else None
        if start is None or start.node.loop != "start":
            self.problems[end.id] = "its input 'loop' must come from the start of a loop, beside it"
        elif start.id in self._ends:
            self.problems[end.id] = (
                f"{start} has an end already: {self._ends[start.id]}; a loop has one start and one end"
            )
        else:
            self._ends[start.id] = end

    def _find_out(self) -> None:
        """Find out which loops each step is in.

        That is so of what needs a loop's start, and of a whole loop that is inside of it: one whose end is, or one that
        shares steps with it and whose end comes before its own.
        """
        inside: dict[str, set[str]] = {}
        while True:
            self._follow(inside)
            before = sum(map(len, inside.values()))
            for start, end in self._ends.items():
                inside.setdefault(start, set()).update(self._around[end.id] - {start})
            for around in {around for around in self._around.values() if len(around) > 1}:
                for outer, inner in permutations(around, 2):
                    if inner in self._past[self._ends[outer].id]:
                        for part in (inner, self._ends[inner].id):
                            inside.setdefault(part, set()).add(outer)
            if sum(map(len, inside.values())) == before:
                return

    def _follow(self, inside: "Mapping[str, set[str]]") -> None:
        """Go along the links once; some steps are known to be inside of loops."""
        for step in self._steps.values():
            sources = [source for source, _ in step.links.values() if source in self._steps]
            ended = {source for source in sources if self._ends.get(source) is step}
            around = _union(self._around[source] for source in sources)
            around |= {source for source in sources if source in self._ends}
            self._around[step.id] = (around - ended) | inside.get(step.id, set[str]())
            self._past[step.id] = _union(self._past[source] for source in sources) | ended

    def _check(self, step: "Step") -> None:
        around = self._around[step.id]
        for start in around & self._past[step.id]:
            self.problems.setdefault(
                self._ends[start].id,
                f"{step} uses what is made inside this loop, and what comes out of it; "
                "outside of a loop there is only what comes out of its end",
            )
        for outer, inner in pairwise(self._inwards(step.id) if len(around) > 1 else ()):
            if outer.links["loop"][0] not in self._around[inner.id]:
                self.problems.setdefault(
                    inner.id,
                    f"{step} is in this loop and in the one that ends at {outer}, and neither is inside the other; "
                    "link what comes out of one of them to the end of the other",
                )


def is_end(step: "Step") -> bool:
    """Whether a step is the end of a loop."""
    return step.node.loop in ("each", "while")


def _union(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    found: frozenset[str] = frozenset()
    for each in sets:
        found = found | each if found else each
    return found
