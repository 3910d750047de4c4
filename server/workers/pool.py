"""The pool of workers: what the server uses to have jobs run.

async with WorkerPool(PoolOptions(devices=("cuda:0", "cuda:1"))) as pool:
    result = await pool.run(Job.of("7", workflow), on_events)

It is entered at once, while workers are still starting. Nothing here blocks the event loop.
"""

import asyncio
import logging
from asyncio import Future, Task
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from server.workers.descriptions import Description, Descriptions
from server.workers.errors import CauseKind, NoWorker, PoolClosed, WorkerDied
from server.workers.live_worker import LiveWorker
from server.workers.messages import Device, Job, JobEvent, JobResult, ResidentModel
from server.workers.options import PoolOptions
from server.workers.slot import Slot
from server.workers.ticket import OnEvents, Ticket

log = logging.getLogger("latentloom.workers")

DESCRIBE_SECONDS = 1.0
STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """One place for a worker.

    Args:
        name: of the worker that is there; None: there is none.
        state: `absent`: the next attempt to start one is made after `pause` seconds.
        jobs: how many it has run.
        rss: bytes of memory it holds, if the system tells.
        replaced: how many workers had their time here, those not counted that died.
        trouble: why no worker, or no worker with the present code, can be started.
    """

    device: str
    name: str | None
    state: Literal["absent", "starting", "idle", "busy", "leaving"]
    pid: int | None
    job_id: str | None
    jobs: int
    rss: int | None
    models: tuple[ResidentModel, ...]
    replaced: int
    deaths: Mapping[CauseKind, int]
    trouble: str | None
    pause: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatus:
    """The pool at one moment. `waiting`: how many jobs no worker has begun."""

    workers: tuple[WorkerStatus, ...]
    waiting: int

    @property
    def idle(self) -> int:
        """How many workers have nothing to do."""
        return sum(worker.state == "idle" for worker in self.workers)

    @property
    def deaths(self) -> Mapping[CauseKind, int]:
        """How many workers have died, by cause."""
        return sum((Counter(worker.deaths) for worker in self.workers), Counter[CauseKind]())


@dataclass(slots=True, eq=False)
class _Watcher:
    condition: Callable[[PoolStatus], bool]
    met: "Future[PoolStatus]"

    def look(self, status: PoolStatus) -> None:
        if not self.met.done():
            try:
                if self.condition(status):
                    self.met.set_result(status)
            except Exception as error:  # of whoever waits
                self.met.set_exception(error)


def ignore(events: Sequence[JobEvent]) -> None:
    """For those who do not watch."""


class WorkerPool:
    """Workers, one for each device, each with one job at a time. To be used on one event loop."""

    def __init__(self, options: PoolOptions | None = None) -> None:
        self.options = options or PoolOptions()
        self._slots: list[Slot] = []
        self._waiting: deque[Ticket] = deque()
        self._tickets: dict[str, Ticket] = {}
        self._watchers: list[_Watcher] = []
        self._closed = False
        self._descriptions = Descriptions(self.options.worker)
        self._known: Description | None = None
        self._asking = asyncio.Lock()
        self._next_description: Task[Description] | None = None
        self._recalled: Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._recalled = asyncio.create_task(self._recall())
        for number, device in enumerate(self.options.devices, 1):
            self._slots.append(Slot(number, device, self.options, self._identity, self._changed))
        self._describe_soon()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    # Jobs

    async def run(self, job: Job, on_events: OnEvents = ignore) -> JobResult:
        """Run a job as soon as a worker has time for it.

        If whoever waits here is cancelled, so is the job.

        Args:
            on_events: is told everything that happens, in order, on the event loop. What it raises comes out here, when
                the job has been stopped.

        Raises:
            WorkerDied: the worker ended over the job, which may be run again; what was made of it is in the store.
            PoolClosed: no jobs are taken any more.
            ValueError: there is a job with this id already, or it is too large.
        """
        if self._closed:
            raise PoolClosed
        if job.id in self._tickets:
            raise ValueError(f"there is a job {job.id} already")
        ticket = Ticket(job, on_events, asyncio.get_running_loop().create_future())
        self._tickets[job.id] = ticket
        self._waiting.append(ticket)
        self._changed()
        try:
            return await ticket.result
        except asyncio.CancelledError:
            self.cancel(job.id)
            raise
        finally:
            del self._tickets[job.id]

    def cancel(self, job_id: str) -> bool:
        """Cancel this job: at once if it waits, after its present step if it runs. False: there is no such job.

        A job may be done before it hears of that.
        """
        ticket = self._tickets.get(job_id)
        if ticket is None:
            return False
        if ticket in self._waiting:
            self._waiting.remove(ticket)
            ticket.end(JobResult(status="cancelled"))
            self._changed()
            return True
        for slot in self._slots:
            if slot.worker is not None and slot.worker.ticket is ticket:
                slot.worker.cancel()
        return True

    async def free(self, *, models: bool, memory: bool) -> int:
        """Have all workers let go of models, or of the results they keep in memory, as soon as they have no job.

        Returns how many bytes that were.
        """
        asked = [worker.free(models, memory) for worker in self._ready()]
        freed = await asyncio.gather(*asked, return_exceptions=True)
        return sum(nbytes for nbytes in freed if isinstance(nbytes, int))

    # What is there

    def status(self) -> PoolStatus:
        """The pool as it is now."""
        return PoolStatus(workers=tuple(map(_status, self._slots)), waiting=len(self._waiting))

    async def wait_until(self, condition: Callable[[PoolStatus], bool]) -> PoolStatus:
        """Wait for a status; `lambda status: status.idle > status.waiting` means that a job would begin at once.

        Raises:
            PoolClosed: that will never be.
        """
        status = self.status()
        if condition(status):
            return status
        if self._closed:
            raise PoolClosed
        watcher = _Watcher(condition, asyncio.get_running_loop().create_future())
        self._watchers.append(watcher)
        try:
            return await watcher.met
        finally:
            self._watchers.remove(watcher)

    async def describe(self, wait: float = DESCRIBE_SECONDS) -> Description:
        """What nodes there are and what they can choose from, as fresh as can be had.

        Own nodes that have changed on the disk are loaded by new workers, which take the place of the present ones as
        these have no job any more. If the new ones cannot be started, the old ones go on, and the status says why.

        Args:
            wait: after so many seconds, what was known last will do. If nothing was, it takes as long as it takes.

        Raises:
            NoWorker: nothing is known, and no worker can be started.
            PoolClosed: there is nobody to ask any more.
        """
        if self._closed:
            raise PoolClosed
        task = self._describe_soon()
        if self._recalled is not None:
            await asyncio.shield(self._recalled)
        await asyncio.wait([task], timeout=None if self._known is None else wait)
        if not task.done() or task.cancelled() or task.exception() is not None:
            if self._known is not None:
                return self._known
            if task.cancelled():
                raise PoolClosed
        return task.result()

    async def devices(self) -> list[Device]:
        """The devices of all workers that can be asked, as they are now."""
        asked = await asyncio.gather(*(worker.inspect() for worker in self._ready()), return_exceptions=True)
        return [device for device in asked if isinstance(device, Device)]

    # The end

    async def drain(self) -> None:
        """Take no more jobs, and wait until those that were taken are over."""
        self._closed = True
        while self._tickets:
            await asyncio.wait([ticket.result for ticket in self._tickets.values()])
            await asyncio.sleep(0)  # those who wait for them go first

    async def close(self, seconds: float = STOP_SECONDS) -> None:
        """Have all workers hand back their jobs after their present steps, and end. May be called again.

        Args:
            seconds: those that take longer are killed.
        """
        self._closed = True
        while self._waiting:
            self._waiting.popleft().end(JobResult(status="handed_back"))
        for task in (self._recalled, self._next_description):
            if task is not None:
                task.cancel()
        await asyncio.gather(*(slot.close(seconds) for slot in self._slots))
        for watcher in self._watchers:
            if not watcher.met.done():
                watcher.met.set_exception(PoolClosed())

    # Inside

    def _ready(self) -> list[LiveWorker]:
        return [slot.worker for slot in self._slots if slot.worker is not None and slot.worker.is_ready]

    def _changed(self) -> None:
        """Something is different: jobs may be given out, and somebody may have waited for it."""
        for slot in self._slots:
            slot.look()
            worker = slot.worker
            while self._waiting and worker is not None and worker.accepts:
                ticket = self._waiting.popleft()
                try:
                    worker.begin(ticket)
                except ValueError as error:
                    ticket.fail(error)
        if self._watchers:
            status = self.status()
            for watcher in self._watchers:
                watcher.look(status)

    async def _identity(self) -> str:
        return await asyncio.to_thread(self._descriptions.identity)

    async def _recall(self) -> None:
        self._known = await asyncio.to_thread(lambda: self._descriptions.recall(self._descriptions.identity()))

    def _describe_soon(self) -> "Task[Description]":
        """A description that is begun from now on: what is there now is in it."""
        if self._next_description is None or self._next_description.done():
            self._next_description = asyncio.create_task(self._describe())
            self._next_description.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._next_description

    async def _describe(self) -> Description:
        async with self._asking:
            self._next_description = None
            identity = await self._identity()
            for slot in self._slots:
                slot.look(identity)
            while True:
                worker = await self._describer(identity)
                with suppress(WorkerDied, PoolClosed):
                    description = Description(await worker.describe())
                    break
            if self._known is None or self._known.etag != description.etag:
                self._known = description
                await asyncio.to_thread(self._descriptions.keep, worker.identity, description)
            return description

    async def _describer(self, identity: str) -> LiveWorker:
        """A worker that can describe the present code; or, if there will be none, an older one."""

        def found() -> LiveWorker | None:
            ready = [worker for slot in self._slots if (worker := slot.ready_for(identity)) is not None]
            present = [worker for worker in ready if worker.identity == identity]
            if present:
                return present[0]
            return ready[0] if ready and hopeless() else None

        def hopeless() -> bool:
            return all(slot.has_tried(identity) for slot in self._slots)

        await self.wait_until(lambda _: found() is not None or hopeless())
        worker = found()
        if worker is None:
            raise NoWorker("; ".join(sorted({str(slot.trouble) for slot in self._slots})))
        return worker


def _status(slot: Slot) -> WorkerStatus:
    worker = slot.worker
    there = worker is not None and worker.state != "gone"
    return WorkerStatus(
        device=slot.device,
        name=worker.name if worker is not None and there else None,
        state=worker.state if worker is not None and worker.state != "gone" else "absent",
        pid=worker.pid if worker is not None and there else None,
        job_id=worker.ticket.job.id if worker is not None and worker.ticket is not None else None,
        jobs=worker.jobs if worker is not None and there else 0,
        rss=worker.rss if worker is not None and there else None,
        models=worker.models if worker is not None and there else (),
        replaced=slot.replaced,
        deaths=dict(slot.deaths),
        trouble=slot.trouble,
        pause=slot.pause,
    )
