"""Lanes: named resources, each for so many steps at once, and the order in which steps get them.

Of the steps that are ready for a lane, one of the most urgent run goes first. Runs of equal urgency take turns, step by
step; within a run the step that comes first in its plan goes first. So the order in which steps start in a lane follows
from what is ready, never from chance.

A less urgent run does not wait for ever: when `PATIENCE` steps of more urgent ones have gone before it, one of its own
goes next. That slows an urgent run down by no more than one part in so many.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Protocol

UNLIMITED = 1 << 30
PATIENCE = 50

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


May = Callable[[Job], bool]
"""Whether a step may be taken now."""


def usual_lanes() -> dict[str, int]:
    """One network at a time, as many other computations as there are cores, some files, and any number of waits."""
    return {"device": 1, "cpu": os.cpu_count() or 1, "io": 4, "async": UNLIMITED}


_Entry = tuple[Rank, int, Job]


@dataclass(slots=True)
class _Lane:
    width: int
    held: set[Job] = field(default_factory=set[Job])
    """Steps that have a place."""
    ready: dict[int, list[_Entry]] = field(default_factory=dict[int, list[_Entry]])
    """A heap for each run that has something ready, by the run's serial number. What is on top is still to be had."""
    turns: dict[int, int] = field(default_factory=dict[int, int])
    """How many steps each run was given here."""
    passed: dict[int, int] = field(default_factory=dict[int, int])
    """How many steps of more urgent runs have gone before each run since its last turn."""

    def first(self, may: May | None) -> Job | None:
        """The step whose turn it is, of those that may be taken."""
        if len(self.ready) == 1:
            (heap,) = self.ready.values()
            return heap[0][2] if may is None or may(heap[0][2]) else None
        heaps = [heap for heap in self.ready.values() if may is None or may(heap[0][2])]
        return min(heaps, key=self._order)[0][2] if heaps else None

    def _order(self, heap: list[_Entry]) -> tuple[bool, int, int, int]:
        queue = heap[0][2].queue
        patient = self.passed.get(queue.serial, 0) < PATIENCE
        return patient, -queue.priority, self.turns[queue.serial], queue.serial

    def count_turn(self, queue: Queue) -> None:
        """A step of this run has been taken, before those of all the others."""
        self.turns[queue.serial] += 1
        self.passed.pop(queue.serial, None)
        if len(self.ready) > 1:
            for serial, heap in self.ready.items():
                if heap[0][2].queue.priority < queue.priority:
                    self.passed[serial] = self.passed.get(serial, 0) + 1


class Lanes:
    """All lanes of an executor. Not safe for several threads: the executor's lock guards it."""

    def __init__(self, widths: Mapping[str, int]) -> None:
        self._lanes = {name: _Lane(width) for name, width in widths.items()}
        self._count = 0
        self._entries: dict[Job, int] = {}
        """Steps that are ready, and the number of their entry; other entries of the heaps are void."""

    @property
    def ready(self) -> bool:
        """Whether any step waits for its lane."""
        return bool(self._entries)

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
        self._entries[job] = self._count
        heappush(heap, (job.rank, self._count, job))

    def pick(self, may: May | None = None) -> Job | None:
        """Take the step that is to start next, and its place in the lane; None if none can.

        Of several lanes, those that have room for everything come first: what is in them keeps nobody busy.
        """
        best: Job | None = None
        best_lane: _Lane | None = None
        best_order: tuple[int, bool, Rank] = 0, False, ()
        for lane in self._lanes.values():
            if not lane.ready or len(lane.held) >= lane.width:
                continue
            job = lane.first(may)
            if job is None:
                continue
            order = -job.queue.priority, lane.width < UNLIMITED, job.rank
            if best is None or order < best_order:
                best, best_lane, best_order = job, lane, order
        if best is not None and best_lane is not None:
            best_lane.held.add(best)
            best_lane.count_turn(best.queue)
            self.withdraw(best)
        return best

    def free(self, job: Job) -> None:
        """Give back the place that a picked step had. May be called again."""
        self._lanes[job.lane].held.discard(job)

    def withdraw(self, job: Job) -> None:
        """Have a step wait for its lane no more."""
        if self._entries.pop(job, None) is None:
            return
        ready, serial = self._lanes[job.lane].ready, job.queue.serial
        heap = ready[serial]
        while heap and self._entries.get(heap[0][2]) != heap[0][1]:
            heappop(heap)
        if not heap:
            del ready[serial]

    def held(self, serial: int) -> list[Job]:
        """The steps of a run that have places."""
        return [job for lane in self._lanes.values() for job in lane.held if job.queue.serial == serial]

    def forget(self, serial: int) -> list[Job]:
        """Drop everything that a run has ready, and what is remembered of it. Returns what was dropped."""
        dropped: list[Job] = []
        for lane in self._lanes.values():
            for _, number, job in lane.ready.pop(serial, ()):
                if self._entries.get(job) == number:
                    del self._entries[job]
                    dropped.append(job)
            lane.turns.pop(serial, None)
            lane.passed.pop(serial, None)
        return dropped
