"""Loops in a document: what lies between a start and an end is run once for each turn.

A turn is a copy of the steps between, in which the outputs of the start are replaced by those of this turn. Its steps
have keys of their own, so a loop that is run again with one item changed runs that turn alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graph.resolve import Ref, Step


@dataclass(frozen=True, slots=True)
class Turn:
    """The steps of one turn, and where what the end takes comes from."""

    steps: tuple[Step, ...]
    ends: Mapping[str, Ref]


class Loop:
    """The end of a loop, its start, and what lies between.

    Args:
        scope: the steps among which it stands, each after its sources.
    """

    def __init__(self, end: Step, scope: Sequence[Step]) -> None:
        self.end = end
        start = end.links.get("loop")
        found = next((step for step in scope if start and step.id == start[0]), None)
        if found is None or found.node.loop != "start":
            raise ValueError("its input 'loop' must come from the start of a loop, in the same workflow or turn")
        self.start = found
        inside: dict[str, Step] = {}
        after = {end.id}
        for step in scope:
            sources = {source for source, _ in step.links.values()}
            if step.id == end.id:
                continue
            if sources & after:
                after.add(step.id)
                leaks = [source for source in sources if source in inside or source == self.start.id]
                if leaks:
                    raise ValueError(
                        f"{step} uses what {inside.get(leaks[0], self.start)} makes inside the loop; "
                        "outside of it there is only what comes out of its end"
                    )
            elif self.start.id in sources or not sources.isdisjoint(inside):
                inside[step.id] = step
        self.between: tuple[Step, ...] = tuple(inside.values())

    def turn(self, name: str, outputs: Sequence[Ref]) -> Turn:
        """Copy what lies between, under ids that begin with `name`, for these outputs of the start.

        The first output of a start is the loop itself, which only its end takes.
        """
        replaced: dict[Ref, Ref] = {(self.start.id, at): ref for at, ref in enumerate(outputs, 1)}
        inside = {step.id for step in self.between}

        def moved(ref: Ref) -> Ref:
            return (f"{name}.{ref[0]}", ref[1]) if ref[0] in inside else replaced.get(ref, ref)

        steps = tuple(
            Step(
                f"{name}.{step.id}",
                step.node,
                step.literals,
                {given: moved(ref) for given, ref in step.links.items()},
                step.files,
                step.title,
                parent=self.end.id,
            )
            for step in self.between
        )
        return Turn(steps, {given: moved(ref) for given, ref in self.end.links.items() if given != "loop"})
