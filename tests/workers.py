"""Pools of real workers that know the nodes of `worker_nodes.py`, and small jobs for them."""

import json
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from server.workers.messages import Job, JobEvent, JobResult, NodeEvent, NodeFinished, NodeReused, NodeStarted
from server.workers.options import PoolOptions, WorkerOptions
from server.workers.pool import PoolStatus, WorkerPool, WorkerStatus, ignore

NODES = Path(__file__).parent / "worker_nodes.py"

E = TypeVar("E", bound=JobEvent)
_numbers = count(1)


def pool_options(data: Path, worker: Mapping[str, Any] | None = None, **changes: Any) -> PoolOptions:
    """One worker on the processor, without any heavy imports."""
    told: dict[str, Any] = {"data": data, "own_nodes": (NODES,), "warm_up": False, "heartbeat": 0.2, **(worker or {})}
    all_told: dict[str, Any] = {"devices": ("cpu",), "worker": WorkerOptions(**told), "first_pause": 0.05, **changes}
    return PoolOptions(**all_told)


def pool_of(data: Path, worker: Mapping[str, Any] | None = None, **changes: Any) -> WorkerPool:
    return WorkerPool(pool_options(data, worker, **changes))


def use(class_type: str, **inputs: Any) -> dict[str, Any]:
    """A node of a workflow."""
    return {"class_type": class_type, "inputs": inputs}


def chain(*classes: str, length: int = 1) -> dict[str, Any]:
    """A yarn that goes through nodes of these classes and is shown."""
    nodes = {"1": use("Spin", length=length)}
    for at, name in enumerate((*classes, "Show"), 2):
        nodes[str(at)] = use(name, yarn=[str(at - 1), 0])
    return nodes


def alone(class_type: str, **inputs: Any) -> dict[str, Any]:
    """A node, shown if that is possible."""
    shows = class_type in ("Modules", "Scribble", "Tick", "Shout", "Draw", "Grow", "Write", "Odd", "Warn", "Variable")
    return {"1": use(class_type, **inputs)} | ({} if shows else {"2": use("Show", yarn=["1", 0])})


def job(workflow: Mapping[str, Any], job_id: str | None = None, **options: Any) -> Job:
    return Job.of(job_id or f"job {next(_numbers)}", workflow, **options)


async def told(pool: WorkerPool, workflow: Mapping[str, Any], **options: Any) -> tuple[JobResult, list[JobEvent]]:
    """Run a workflow, and collect what happens."""
    events: list[JobEvent] = []
    return await pool.run(job(workflow, **options), events.extend), events


async def run(pool: WorkerPool, workflow: Mapping[str, Any], **options: Any) -> JobResult:
    return await pool.run(job(workflow, **options), ignore)


def shown(result: JobResult, node_id: str) -> str:
    """What a node had to say."""
    return json.loads(result.outputs)[node_id]["text"][0]


def process_of(result: JobResult) -> int:
    """In which process the last node of a chain ran."""
    (text,) = (each["text"][0] for each in json.loads(result.outputs).values())
    return int(text.rpartition(" ")[2])


def begun(events: Sequence[JobEvent], class_name: str) -> bool:
    """Whether a node of this class begins."""
    return any(isinstance(event, NodeStarted) and event.class_name == class_name for event in events)


def names(events: Sequence[JobEvent]) -> list[str]:
    """Events as `kind id`."""
    return [f"{event.kind} {event.node_id}" if isinstance(event, NodeEvent) else event.kind for event in events]


def ran(events: Sequence[JobEvent]) -> list[str]:
    return [event.node_id for event in events if isinstance(event, NodeFinished)]


def reused(events: Sequence[JobEvent]) -> list[str]:
    return [event.node_id for event in events if isinstance(event, NodeReused)]


def ready(status: PoolStatus) -> bool:
    """Whether all workers wait for jobs."""
    return status.idle == len(status.workers)


async def only_worker(pool: WorkerPool) -> WorkerStatus:
    """The one worker of a pool, when it is ready."""
    (worker,) = (await pool.wait_until(ready)).workers
    return worker
