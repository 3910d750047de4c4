"""The thread on which a worker runs its jobs, one after the other."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from queue import SimpleQueue
from threading import Thread

from graph.active_run import RunOptions
from graph.cancellation import Cancellation
from graph.errors import Cancelled
from graph.executor import Result
from graph.folders import Folders
from graph.problems import InvalidWorkflow
from graph.store import MemoryStore, Store
from graph.tiered_store import TieredStore
from graph.workflow import parse
from nodes.engine import Engine
from server.workers.failures import failure_of, internal_failure, wear
from server.workers.memory import give_back
from server.workers.messages import Alive, Ended, Free, Freed, Job, JobFolders, JobResult, Lookups, Status
from server.workers.options import PreviewOptions
from server.workers.outbox import Outbox
from server.workers.reporting import Reporter, files_of, shown

log = logging.getLogger("latentloom.worker")


@dataclass(slots=True, eq=False)
class _Running:
    job: Job
    cancellation: Cancellation = field(default_factory=Cancellation)
    ending: Status = "cancelled"
    """What it is if it is stopped."""


class Runner:
    """Runs jobs on an engine. All methods return at once, whatever runs."""

    def __init__(self, engine: Engine, outbox: Outbox, alive: Callable[[], Alive], previews: PreviewOptions) -> None:
        self._engine = engine
        self._outbox = outbox
        self._alive = alive
        self._previews = previews
        self._running: _Running | None = None
        self._orders: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="latentloom-jobs", daemon=True)
        self._thread.start()

    @property
    def job_id(self) -> str | None:
        """The job that runs."""
        running = self._running
        return None if running is None else running.job.id

    def begin(self, job: Job) -> None:
        """Run a job when those before it are over."""
        self._running = running = _Running(job)
        self._orders.put(partial(self._run, running))

    def cancel(self, job_id: str) -> None:
        """Stop a job after its present step, if it is the one that runs."""
        running = self._running
        if running is not None and running.job.id == job_id:
            running.cancellation.cancel()

    def hand_back(self) -> None:
        """Stop whatever runs after its present step."""
        running = self._running
        if running is not None and not running.cancellation.requested:
            running.ending = "handed_back"
            running.cancellation.cancel()

    def free(self, order: Free) -> None:
        """Let go of models and results when no job runs."""
        self._orders.put(partial(self._free, order))

    def close(self) -> None:
        """Wait until everything that was ordered is done."""
        self._orders.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (order := self._orders.get()) is not None:
            order()

    def _run(self, running: _Running) -> None:
        job = running.job
        reporter = Reporter(job.id, self._outbox, self._previews)
        before = _lookups(self._engine.store)
        result = self._result(running, reporter)
        result = replace(result, lookups=_since(before, _lookups(self._engine.store)))
        worn = next(filter(None, map(wear, result.failures)), None)
        self._running = None
        self._outbox.forget()
        self._outbox.put(self._alive())
        self._outbox.put(Ended(job_id=job.id, result=result, worn=worn))

    def _result(self, running: _Running, reporter: Reporter) -> JobResult:
        job = running.job
        engine = self._engine if job.folders is None else self._engine.at(_folders(self._engine.folders, job.folders))
        warnings: tuple[str, ...] = ()
        try:
            workflow = parse(job.workflow)
            graph = engine.resolve(workflow, job.targets)
            warnings = tuple(str(warning) for warning in graph.warnings)
            made = engine.run_graph(
                graph,
                workflow,
                emit=reporter,
                cancellation=running.cancellation,
                extra=json.loads(job.extra),
                options=RunOptions(priority=job.priority, node_timeout=job.node_timeout, previews=job.previews),
            )
        except InvalidWorkflow as error:
            return JobResult(status="invalid", problems=error.problems)
        except Cancelled:
            return _counted(JobResult(status=running.ending, warnings=warnings), reporter)
        except BaseException as error:  # a fault of the engine; whatever it is, it must not end the worker
            log.error("job %s: the engine failed", job.id, exc_info=True)
            failed = JobResult(status="failed", failures=(internal_failure(error),), warnings=warnings)
            return _counted(failed, reporter)
        for failure in made.failures:
            log.error("job %s: %s", job.id, failure, exc_info=failure.__cause__)
        return _counted(_made(made, warnings), reporter)

    def _free(self, order: Free) -> None:
        freed = 0
        engine = self._engine
        if order.models:
            freed += engine.models.free()
        if order.memory:
            store = engine.store
            if isinstance(store, TieredStore):
                freed += store.memory.nbytes
                store.memory = MemoryStore(store.memory.max_bytes)
            elif isinstance(store, MemoryStore):
                freed += store.nbytes
                engine.store = MemoryStore(store.max_bytes)
        give_back()
        self._outbox.put(self._alive())
        self._outbox.put(Freed(request=order.request, nbytes=freed))


def _folders(own: Folders, job: JobFolders) -> Folders:
    """The worker's own folders with those of a job's owner in their place."""
    return replace(own, output=job.output, input_folder=job.uploads, temp_folder=job.temporary)


def _made(result: Result, warnings: tuple[str, ...]) -> JobResult:
    # Each is JSON already; so is an object of them.
    entries = [json.dumps(node_id).encode() + b":" + shown(ui) for node_id, ui in result.shown.items()]
    files = {node_id: files_of(ui) for node_id, ui in result.shown.items()}
    return JobResult(
        status="failed" if result.failures else "done",
        outputs=b"{%b}" % b",".join(entries),
        files={node_id: paths for node_id, paths in files.items() if paths},
        failures=tuple(failure_of(failure) for failure in result.failures),
        warnings=warnings,
    )


def _lookups(store: Store) -> Lookups:
    """What a store was asked for so far."""
    match store:
        case TieredStore():
            asked = store.lookups
            return Lookups(memory=asked.memory, disk=asked.disk, missed=asked.missed)
        case MemoryStore():
            return Lookups(memory=store.statistics.hits, missed=store.statistics.misses)
        case _:
            return Lookups()


def _since(before: Lookups, now: Lookups) -> Lookups:
    return Lookups(memory=now.memory - before.memory, disk=now.disk - before.disk, missed=now.missed - before.missed)


def _counted(result: JobResult, reporter: Reporter) -> JobResult:
    return replace(result, ran=reporter.ran, reused=reporter.reused, seconds=reporter.seconds)
