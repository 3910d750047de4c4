"""A place for one worker: there is always one in it, as far as that can be had.

A worker that ends is replaced at once; if it does so again and again, after pauses that grow. One that is worn, or
whose code is not the present one, is replaced when its job is over, and goes on if no other can be started.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

from server.workers.errors import CauseKind, WorkerCannotStart
from server.workers.live_worker import LiveWorker
from server.workers.options import PoolOptions

STOP_SECONDS = 30.0
"""For how long a worker without a job may take to end."""

log = logging.getLogger("latentloom.workers")


class Slot:
    """Keeps one worker going, from when it is made until `close`.

    Args:
        number: from 1 on, for the names of its workers.
        identity: tells what the code is that a worker will load now.
        changed: is called whenever something about it, or about its workers, is different.
    """

    def __init__(
        self,
        number: int,
        device: str,
        options: PoolOptions,
        identity: Callable[[], Awaitable[str]],
        changed: Callable[[], None],
    ) -> None:
        self.device = device
        self.worker: LiveWorker | None = None
        """The one that is there, ready or not."""
        self.trouble: str | None = None
        """Why there is none, or no better one."""
        self.pause = 0.0
        """For how many seconds it waits, or waited last, before it tries again."""
        self.deaths: Counter[CauseKind] = Counter()
        self.replaced = 0
        self._number = number
        self._generation = 0
        self._options = options
        self._identity = identity
        self._changed = changed
        self._failures = 0
        """In a row."""
        self._due = asyncio.Event()
        self._again = asyncio.Event()
        """Something has changed that may help a worker to start."""
        self._failed: str | None = None
        """The code with which the last worker could not be started."""
        self._alive: set[LiveWorker] = set()
        self._keeping = asyncio.get_running_loop().create_task(self._keep())

    def look(self, identity: str | None = None) -> None:
        """See whether the worker should be replaced.

        Args:
            identity: of the present code, if it was just looked at.
        """
        worker = self.worker
        if identity not in (None, self._failed) and self._failed is not None:
            self._again.set()
        if worker is None or not worker.is_ready:
            return
        if identity not in (None, self._failed, worker.identity) and worker.worn is None:
            worker.worn = "its code is not the present one"
        if worker.worn is not None:
            self._due.set()

    def ready_for(self, identity: str) -> LiveWorker | None:
        """A worker that can answer, best one of this code; it may be about to take the present one's place."""
        ready = [worker for worker in self._alive if worker.is_ready]
        return max(ready, key=lambda worker: worker.identity == identity, default=None)

    def has_tried(self, identity: str) -> bool:
        """Whether no worker of this code can be started, as far as is known."""
        return self._failed == identity

    async def close(self, seconds: float) -> None:
        """Have the worker hand back its job and end; kill it if it takes longer than so many seconds."""
        self._keeping.cancel()
        await asyncio.wait([self._keeping])
        await asyncio.gather(*(worker.stop(seconds) for worker in self._alive))

    async def _keep(self) -> None:
        while True:
            try:
                await self._rest()
                worker = self.worker = await self._new_worker()
                if await self._begun(worker):
                    while worker is not None:
                        worker = await self._look_after(worker)
                else:
                    self._failures += 1
            except Exception:  # a fault of this program: the next worker may have better luck
                log.exception("a worker for %s is no longer looked after", self.device)
                self._failures += 1
            finally:
                self.worker = None
                self._changed()

    async def _rest(self) -> None:
        """Wait before the next attempt, if those before have come to nothing."""
        options, failures = self._options, min(self._failures, 50)
        self.pause = 0.0 if failures < 2 else min(options.longest_pause, options.first_pause * 2 ** (failures - 2))
        self._again.clear()
        self._changed()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._again.wait(), self.pause)

    async def _look_after(self, worker: LiveWorker) -> LiveWorker | None:
        """See a worker to its end. Returns the one that is there in its place, if there is one."""
        self._due.clear()  # which was for the one before, if there was one
        self.look()
        due = asyncio.create_task(self._due.wait())
        try:
            await asyncio.wait([worker.gone, due], return_when=asyncio.FIRST_COMPLETED)
        finally:
            due.cancel()
        if worker.gone.done():
            self._account(worker)
            return None
        log.info("worker %s is replaced: %s", worker.name, worker.worn)
        successor = await self._new_worker()
        if not await self._begun(successor):
            worker.worn = None
            self._changed()
            return worker
        await worker.until_free()
        if worker.gone.done():
            self._account(worker)
        else:
            await worker.stop(STOP_SECONDS)
            self.replaced += 1
        self.worker = successor
        self._changed()
        return successor

    def _account(self, worker: LiveWorker) -> None:
        """A worker has ended that nobody here had told to."""
        cause = worker.gone.result()
        if cause is not None:
            self.deaths[cause.kind] += 1
            log.error("worker %s %s", worker.name, cause.text)
        # Who dies over a job can start, and it may have been the job.
        started_well = worker.died_over_job or worker.jobs or worker.age > self._options.longest_pause
        self._failures = 0 if started_well else self._failures + 1
        self.worker = None
        self._changed()

    async def _new_worker(self) -> LiveWorker:
        identity = await self._identity()
        self._generation += 1
        name = f"{self.device}/{self._number}.{self._generation}"
        worker = LiveWorker(name, self.device, self._options, identity, self._changed)
        self._alive.add(worker)
        worker.gone.add_done_callback(lambda _: self._alive.discard(worker))
        return worker

    async def _begun(self, worker: LiveWorker) -> bool:
        """Wait until a worker is ready. False: it could not start, and the trouble says why."""
        try:
            await worker.ready()
        except WorkerCannotStart as error:
            await asyncio.wait([worker.gone])
            self.trouble, self._failed = error.reason, worker.identity
            log.error("a worker for %s cannot be started: %s", self.device, error)
            self._changed()
            return False
        self.trouble = self._failed = None
        self._changed()
        return True
