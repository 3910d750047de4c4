"""Lanes: named resources, each for so many steps at once, and the order in which steps get them.

Of the steps that are ready for a lane, one of the most urgent run goes first. Runs of equal urgency take turns, step by
step; within a run the step that comes first in its plan goes first. So the order in which steps start in a lane follows
from what is ready, never from chance.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Protocol

UNLIMITED = 1 << 30

Rank = tuple[int, ...]
"""Where a step stands in the plan of its run; what a composite stands for comes in its place."""


class Queue(Protocol):
    """A run, as far as lanes look at it."""

    @property
    def priority(self) -> int:
        """How urgent it is; higher goes first."""
        ...

    @property
    def serial(self) -> int:
        """Which run it is, counted from the start; earlier goes first."""
        ...


class Job(Protocol):
    """A step that is ready, as far as lanes look at it."""

    @property
    def lane(self) -> str: ...

    @property
    def rank(self) -> Rank: ...

    @property
    def queue(self) -> Queue: ...


def usual_lanes() -> dict[str, int]:
    """One network at a time, as many other computations as there are cores, some files, and any number of waits."""
    return {"device": 1, "cpu": os.cpu_count() or 1, "io": 4, "async": UNLIMITED}


@dataclass(slots=True)
class _Lane:
    width: int
    busy: int = 0
    ready: dict[int, list[tuple[Rank, int, Job]]] = field(default_factory=dict[int, list[tuple[Rank, int, Job]]])
    """A heap for each run that has something ready, by the run's serial number."""
    turns: dict[int, int] = field(default_factory=dict[int, int])
    """How many steps each run was given here."""

    def first(self) -> Job:
        """The step whose turn it is; there must be one."""
        if len(self.ready) == 1:
            (heap,) = self.ready.values()
        else:
            heap = min(self.ready.values(), key=self._order)
        return heap[0][2]

    def _order(self, heap: list[tuple[Rank, int, Job]]) -> tuple[int, int, int]:
        queue = heap[0][2].queue
        return -queue.priority, self.turns[queue.serial], queue.serial


class Lanes:
    """All lanes of an executor. Not safe for several threads: the executor's lock guards it."""

    def __init__(self, widths: Mapping[str, int]) -> None:
        self._lanes = {name: _Lane(width) for name, width in widths.items()}
        self._count = 0

    def add(self, job: Job) -> None:
        """Take in a step that is ready. A lane that nobody has stated a width for is for one at a time."""
        lane = self._lanes.get(job.lane)
        if lane is None:
            lane = self._lanes[job.lane] = _Lane(1)
        serial = job.queue.serial
        heap = lane.ready.get(serial)
        if heap is None:
            # Who comes, or comes back, counts as having had as many turns as those who had the fewest: no arrears.
            fewest = min((lane.turns[other] for other in lane.ready), default=0)
            lane.turns[serial] = max(lane.turns.get(serial, 0), fewest)
            heap = lane.ready[serial] = []
        self._count += 1
        heappush(heap, (job.rank, self._count, job))

    def pick(self, serial: int | None = None, passing: Callable[[Job], bool] | None = None) -> Job | None:
        """Take the step that is to start next, and its place in the lane; None if none can.

        Args:
            serial: only if it is one of this run.
            passing: lanes whose next step is one of these are left out.
        """
        best: Job | None = None
        for lane in self._lanes.values():
            if not lane.ready or lane.busy >= lane.width:
                continue
            job = lane.first()
            if serial is not None and job.queue.serial != serial:
                continue
            if passing is not None and passing(job):
                continue
            if best is None or (-job.queue.priority, job.rank) < (-best.queue.priority, best.rank):
                best = job
        if best is not None:
            lane = self._lanes[best.lane]
            serial = best.queue.serial
            heappop(lane.ready[serial])
            if not lane.ready[serial]:
                del lane.ready[serial]
            lane.turns[serial] += 1
            lane.busy += 1
        return best

    def free(self, job: Job) -> None:
        """Give back the place that a picked step had."""
        self._lanes[job.lane].busy -= 1

    def forget(self, serial: int) -> list[Job]:
        """Drop everything that a run has ready; returns it."""
        dropped: list[Job] = []
        for lane in self._lanes.values():
            dropped += [job for _, _, job in lane.ready.pop(serial, [])]
            lane.turns.pop(serial, None)
        return dropped
