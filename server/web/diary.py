"""What is written down of one attempt at a job: which nodes ran when, which were reused, how far they were when."""

import time
from dataclasses import dataclass, field
from typing import Any

from server.database.jobs import Course, NodeTiming
from server.workers.messages import (
    JobEvent,
    NodeEvent,
    NodeFailed,
    NodeFinished,
    NodeProgressed,
    NodeReused,
    NodeSkipped,
    NodeStarted,
)

MOST_INNER = 5_000
"""Steps inside composites that are written down of one job; those of the document always are."""
MOST_PROGRESS = 2_000

Mark = tuple[str, float, float, float]
"""A node, when, how far, of how much."""


@dataclass(slots=True, eq=False)
class Diary:
    """An attempt, from the moment at which the diary is made: that is when the job was claimed."""

    timings: list[NodeTiming] = field(default_factory=list[NodeTiming])
    progress: list[Mark] = field(default_factory=list[Mark])
    _began: float = field(default_factory=time.monotonic)
    _late: float | None = None
    """Seconds from the claim until the worker began, whose clock events go by."""
    _starts: dict[str, float] = field(default_factory=dict[str, float])
    _inner: int = 0

    @property
    def seconds(self) -> float:
        """Since the claim."""
        return time.monotonic() - self._began

    @property
    def record(self) -> dict[str, Any]:
        """What does not belong to a node's timing, as JSON."""
        return {"progress": self.progress} if self.progress else {}

    def note(self, event: JobEvent) -> None:
        """Something happened."""
        if self._late is None:
            self._late = max(0.0, self.seconds - event.at)
        at = self._late + event.at
        match event:
            case NodeStarted():
                self._starts[event.node_id] = at
            case NodeFinished():
                self._add(event, self._starts.pop(event.node_id, at - event.seconds), event.seconds, "run")
            case NodeReused():
                self._add(event, at, 0.0, "reused")
            case NodeSkipped():
                self._add(event, at, 0.0, "skipped")
            case NodeFailed():
                start = self._starts.pop(event.node_id, at)
                self._add(event, start, at - start, "failed")
            case NodeProgressed() if len(self.progress) < MOST_PROGRESS:
                self.progress.append((event.node_id, round(at, 6), event.value, event.maximum))
            case _:
                pass

    def _add(self, event: NodeEvent, start: float, seconds: float, course: Course) -> None:
        if event.parent is not None:
            self._inner += 1
            if self._inner > MOST_INNER:
                return
        timing = NodeTiming(event.node_id, event.class_name, round(start, 6), round(seconds, 6), course, event.parent)
        self.timings.append(timing)
