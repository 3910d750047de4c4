"""A job as a trace in the JSON format of Chrome's trace viewer, which Perfetto reads: one row for waiting and attempts,
and as many rows for nodes as ran at the same time. Times are in microseconds after the job was submitted.

The format: "Trace Event Format", by the authors of Chrome's catapult.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from server.database.jobs import Job, NodeTiming

Json = dict[str, Any]
PROCESS, JOB_ROW, FIRST_NODE_ROW = 1, 1, 2
JITTER = 0.0005
"""Seconds by which the end of a node may seem to come after the start of the next one."""


def trace_of(job: Job, timings: Sequence[NodeTiming], now: datetime) -> Json:
    """The trace of a job.

    Args:
        timings: of its nodes, in its last attempt.
        now: where what is not over ends.
    """
    end = _since(job, job.finished or now)
    events: list[Json] = [_named("process_name", f"job {job.id}"), _named("thread_name", "queue", JOB_ROW)]
    waiting = 0.0
    for number, loss in enumerate(job.losses, 1):
        died = _since(job, loss.time)
        started = died if loss.started is None else _since(job, loss.started)
        said = {"worker": loss.worker, "ended": f"its worker {loss.cause}"}
        events += [_waited(waiting, started), _span(f"attempt {number}", "attempt", started, died, JOB_ROW, said)]
        waiting = died
    if job.started is None:
        if not job.losses or job.finished is None:
            events.append(_waited(waiting, end))
        return _document(job, events)
    started = _since(job, job.started)
    if not job.losses or job.losses[-1].started != job.started:
        said = {"worker": job.worker, "state": job.state, "ran": job.ran, "reused": job.reused}
        attempt = _span(f"attempt {len(job.losses) + 1}", "attempt", started, end, JOB_ROW, said)
        events += [_waited(waiting, started), attempt]
    rows = _rows(timings, end - started)
    for at in range(1 + max((each.row for each in rows), default=-1)):
        events.append(_named("thread_name", f"nodes {at + 1}", FIRST_NODE_ROW + at))
    events += [_node(each, started) for each in rows]
    events += [_progressed(mark, started) for mark in job.record.value().get("progress", ())]
    return _document(job, events)


@dataclass(slots=True)
class _Placed:
    timing: NodeTiming
    start: float
    end: float
    row: int = 0


def _rows(timings: Sequence[NodeTiming], most: float) -> list[_Placed]:
    """Nodes in rows: in one row each is over before the next begins, or is a step inside of it."""
    placed = [_Placed(each, min(each.start, most), min(each.start + each.seconds, most)) for each in timings]
    by_id = {each.timing.node_id: each for each in placed}
    open_rows: list[list[_Placed]] = []
    # What began first; of several that began at once, the composite before its steps.
    for each in sorted(placed, key=lambda each: (each.start, -each.end)):
        parent = by_id.get(each.timing.parent or "")
        if parent is not None:
            each.start, each.end = max(each.start, parent.start), min(each.end, parent.end)
            each.end = max(each.start, each.end)
        each.row = _row_for(each, parent, open_rows)
        open_rows[each.row].append(each)
    return placed


def _row_for(each: _Placed, parent: _Placed | None, open_rows: list[list[_Placed]]) -> int:
    """The first row in which everything is over, up to what this is a step of; if there is none, a new one."""
    for row, opened in enumerate(open_rows):
        while opened and opened[-1] is not parent and opened[-1].end <= each.start + JITTER:
            each.start = max(each.start, min(opened.pop().end, each.end))
        if not opened or opened[-1] is parent:
            return row
    open_rows.append([])
    return len(open_rows) - 1


def _since(job: Job, moment: datetime) -> float:
    return max(0.0, (moment - job.created).total_seconds())


def _node(placed: _Placed, started: float) -> Json:
    timing = placed.timing
    said: Json = {"node_id": timing.node_id, "class_type": timing.node_class, "course": timing.course}
    if timing.parent is not None:
        said["parent"] = timing.parent
    name = f"{timing.node_class} {timing.node_id}"
    return _span(name, timing.course, started + placed.start, started + placed.end, FIRST_NODE_ROW + placed.row, said)


def _progressed(mark: Sequence[Any], started: float) -> Json:
    node_id, at, value, maximum = mark
    said = {"done": value, "to do": max(0.0, maximum - value)}
    return {"name": f"progress {node_id}", "ph": "C", "ts": _us(started + at), "pid": PROCESS, "args": said}


def _waited(start: float, end: float) -> Json:
    return _span("queued", "queue", start, end, JOB_ROW, {})


def _span(name: str, kind: str, start: float, end: float, row: int, said: Json) -> Json:
    times = {"ts": _us(start), "dur": _us(max(0.0, end - start))}
    return {"name": name, "cat": kind, "ph": "X", **times, "pid": PROCESS, "tid": row, "args": said}


def _named(what: str, name: str, row: int = 0) -> Json:
    return {"name": what, "ph": "M", "pid": PROCESS, "tid": row, "args": {"name": name}}


def _us(seconds: float) -> float:
    return round(seconds * 1e6, 3)


def _document(job: Job, events: Sequence[Json]) -> Json:
    about = {"job": job.id, "state": job.state, "submitted": job.created.isoformat()}
    return {"traceEvents": list(events), "displayTimeUnit": "ms", "otherData": about}
