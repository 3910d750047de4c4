"""From the queue to the workers and back: claims jobs, has them run, tells whoever listens, and writes down the end.

There is one lane for each worker. A lane claims a job only when its worker is free, keeps the claim alive while the job
runs, and hands it back when the server stops. A worker that dies costs one attempt of one job.
"""

import asyncio
import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta

from server.database.documents import Document
from server.database.errors import DatabaseError, LeaseLost, WrongRequest
from server.database.event_log import NewEvent, slot_of
from server.database.job_history import JobHistory
from server.database.job_queue import JobQueue
from server.database.jobs import State
from server.database.leases import TakenBack
from server.logs import about_job
from server.web import endings
from server.web.diary import Diary
from server.web.endings import Ending
from server.web.hub import Hub, with_texts
from server.web.journal import Journal
from server.web.metrics import Metrics
from server.web.narrator import Message, Narrator, Told
from server.web.running_jobs import CannotRun, Prepare, Running, Workers
from server.workers.errors import WorkerDied, WorkerError
from server.workers.messages import JobEvent, NodeFinished
from server.workers.pool import PoolStatus

log = logging.getLogger("latentloom.server")

LOOK_SECONDS = 5.0
"""A lane that has nothing to do looks into the queue at least so often: another server may have put a job there."""
PAUSE_SECONDS = 2.0
"""A lane that met a database or a worker that does not answer tries again after so long."""
KEEP_HISTORY = timedelta(days=365)


@dataclass(slots=True, kw_only=True)
class Dispatcher:
    """Runs the lanes. `start` begins; `stop` takes no more jobs; `finish` waits for what runs.

    Args:
        name: of this server among those that share the database, the same after a restart.
        lanes: as many as there are workers.
        on_end: is called when a job is over.
        heartbeat: seconds between two signs of life of a job; a few of them fit into a lease.
    """

    name: str
    queue: JobQueue
    history: JobHistory
    journal: Journal
    hub: Hub
    workers: Workers
    prepare: Prepare
    lanes: int
    heartbeat: float = 8.0
    on_end: Callable[[], None] = lambda: None
    metrics: Metrics = field(default_factory=Metrics)
    running: dict[str, Running] = field(default_factory=dict[str, Running])
    """Jobs that run here, by id."""
    _tasks: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])
    _chores: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])
    _bells: list[asyncio.Event] = field(default_factory=list[asyncio.Event])
    _waiting: dict[str, set[asyncio.Event]] = field(default_factory=dict[str, set[asyncio.Event]])
    _claiming: asyncio.Lock = field(default_factory=asyncio.Lock)
    _stopping: bool = False

    async def start(self) -> None:
        """Take back what an earlier life of this server was at, and begin. Raises DatabaseError."""
        taken = await self.queue.recover(f"{self.name}/")
        if taken:
            log.warning("%d jobs were running when the server ended; they are offered again", len(taken))
        for at in range(self.lanes):
            bell = asyncio.Event()
            self._bells.append(bell)
            self._tasks.append(asyncio.create_task(self._lane(f"{self.name}/{at}", bell)))
        self._chores = [asyncio.create_task(self.journal.keep_writing()), asyncio.create_task(self._keep_house())]

    @property
    def is_stopping(self) -> bool:
        """Whether no more jobs are begun."""
        return self._stopping

    def stop(self) -> None:
        """Take no more jobs. Those that run end when the workers are told to stop."""
        self._stopping = True
        self.wake()
        for waiting in self._waiting.values():
            for event in waiting:
                event.set()

    async def finish(self, patience: float = 30.0) -> None:
        """Wait for what runs, and write down what was told of it."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=patience)
            for task in late:
                task.cancel()
        for task in self._chores:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._chores, return_exceptions=True)
        with suppress(DatabaseError):
            await self.journal.write()

    def wake(self) -> None:
        """Say that there may be something to do."""
        for bell in self._bells:
            bell.set()

    def cancel(self, job_id: str) -> None:
        """Stop a job at once if it runs here; the queue has been told already."""
        running = self.running.get(job_id)
        if running is not None and not running.cancelling:
            running.cancelling = True
            if running.at_worker:
                self.workers.cancel(job_id)

    def ended(self, job_id: str) -> None:
        """Let those go on who wait for the end of a job, and have it told to others."""
        self.on_end()
        for event in self._waiting.pop(job_id, ()):
            event.set()

    @contextmanager
    def watching(self, job_id: str) -> Generator[asyncio.Event]:
        """An event that is set when a job has ended here, or when the server stops."""
        event = asyncio.Event()
        waiting = self._waiting.setdefault(job_id, set())
        waiting.add(event)
        try:
            yield event
        finally:
            waiting.discard(event)
            if not waiting:
                self._waiting.pop(job_id, None)

    # One lane

    async def _lane(self, name: str, bell: asyncio.Event) -> None:
        while not self._stopping:
            bell.clear()
            try:
                running = await self._claimed(name)
                if running is not None:
                    await self._work(name, running)
                    continue
                wait = LOOK_SECONDS
            except (DatabaseError, WorkerError) as error:
                if not self._stopping:
                    log.warning("no job can be run at the moment: %s", error)
                wait = PAUSE_SECONDS
            except Exception:
                log.exception("a lane met a mistake of this server")
                wait = PAUSE_SECONDS
            if self._stopping:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(bell.wait(), wait)

    async def _claimed(self, name: str) -> Running | None:
        """The next job, as soon as a worker is free for it. None: there is nothing to do."""
        async with self._claiming:
            await self.workers.wait_until(self._has_room)
            claim = None if self._stopping else await self.queue.claim(name)
            if claim is None:
                return None
            running = Running(claim, Narrator(claim.job.id, {}), Diary())
            self.running[claim.job.id] = running
            return running

    def _has_room(self, status: PoolStatus) -> bool:
        usable = sum(worker.state in ("idle", "busy") for worker in status.workers)
        return self._stopping or usable > len(self.running)

    async def _work(self, name: str, running: Running) -> None:
        with about_job(running.claim.job.id):
            await self._see_through(name, running)

    async def _see_through(self, name: str, running: Running) -> None:
        beats = asyncio.create_task(self._keep_alive(running))
        try:
            self.hub.queue_changed()
            await self._run(name, running)
        except asyncio.CancelledError:
            # Only `finish` does so, when a worker took too long to stop.
            await self._give_back(running)
            raise
        except WrongRequest as error:  # what this job made cannot be written down, now or later
            await self._mistaken(running, error)
        except (DatabaseError, WorkerError):
            raise
        except Exception as error:
            await self._mistaken(running, error)
        finally:
            beats.cancel()
            del self.running[running.claim.job.id]

    async def _mistaken(self, running: Running, error: Exception) -> None:
        """Fail a job over a mistake of this server, so that it stands in nobody's way."""
        log.error("job %s: a mistake of this server", running.claim.job.id, exc_info=error)
        await self._end(running, endings.broken(running, type(error).__name__, "a mistake of the server; see its log"))

    async def _run(self, name: str, running: Running) -> None:
        claim = running.claim
        try:
            prepared = await self.prepare(claim)
        except CannotRun as error:
            sentence = str(error)
            await self._end(running, endings.broken(running, "InvalidWorkflow", sentence))
            return
        running.narrator.nodes = prepared.nodes
        if self._stopping:
            await self._give_back(running)
            return
        if running.cancelling:
            await self._end(running, endings.interrupted(running))
            return
        running.at_worker = True
        log.info("job %s begins", claim.job.id)
        try:
            said = await self.workers.run(
                prepared.job, lambda events: self._happened(running, [*map(prepared.names.in_event, events)])
            )
            result = prepared.names.in_result(said)
        except WorkerDied as error:
            await self._died(name, running, error.cause.text)
            return
        except WorkerError:
            await self._give_back(running)
            if self._stopping:
                return
            raise
        finally:
            running.at_worker = False
        if running.lost:
            return
        running.result = result
        if result.status == "handed_back":
            await self._give_back(running)
        else:
            await self._end(running, endings.of_result(running, result))

    def _happened(self, running: Running, events: Sequence[JobEvent]) -> None:
        """Called by the pool, in the order in which it happened."""
        for event in events:
            if isinstance(event, NodeFinished):
                self.metrics.node_ran(event.class_name, event.seconds)
            running.diary.note(event)
        told = running.narrator.tell(events)
        for each in told:
            if isinstance(each, Message) and each.type == "executing":
                running.node = each.data["node"]
        self._publish(running, told)

    def _publish(self, running: Running, told: Sequence[Told]) -> None:
        texts = with_texts(told)
        self.hub.tell(running.owner, running.client_id, texts)
        job_id = running.claim.job.id
        self.journal.add(
            [
                NewEvent(job_id, message.type, Document(text), message.replaces and slot_of(message.replaces))
                for message, text in texts
                if isinstance(message, Message) and text is not None
            ]
        )

    # How jobs end

    async def _end(self, running: Running, ending: Ending) -> None:
        """Write down how a job ended, as often as it takes, and say so."""
        outcome, told = ending
        if told:
            self._publish(running, told)
        while True:
            try:
                await self.queue.finish(running.claim.lease, outcome)
                break
            except LeaseLost as error:
                log.warning("%s", error)
                return
            except DatabaseError as error:
                log.warning("job %s is over, which cannot be written down: %s", running.claim.job.id, error)
                await asyncio.sleep(PAUSE_SECONDS)
        await self._over(running, outcome.state)

    async def _over(self, running: Running, state: State) -> None:
        """Say that a job is in the history."""
        seconds, result = running.diary.seconds, running.result
        self.metrics.job_ended(state, seconds, result)
        steps = f"; {result.ran} steps ran, {result.reused} were reused" if result else ""
        log.info("job %s: %s after %.3f s%s", running.claim.job.id, state, seconds, steps)
        self.hub.queue_changed()
        self._publish(running, [running.narrator.finished()])
        self.ended(running.claim.job.id)

    async def _give_back(self, running: Running) -> None:
        with suppress(DatabaseError):  # then the lease ends by itself, or the next start takes it back
            await self.queue.release(running.claim.lease)
            self.hub.queue_changed()

    async def _died(self, name: str, running: Running, cause: str) -> None:
        """A worker has gone over a job."""
        job = running.claim.job
        log.warning("job %s: its worker %s", job.id, cause)
        if self._stopping:
            await self._give_back(running)
            return
        taken: Sequence[TakenBack] = await self.queue.worker_died(name, cause)
        for back in taken:
            if back.job_id != job.id or back.state == "queued":
                continue
            if back.state == "cancelled":
                self._publish(running, [running.narrator.interrupted()])
            else:
                sentence = f"its worker died three times; last: it {cause}"
                self._publish(running, [running.narrator.broken("WorkerDied", sentence)])
            await self._over(running, back.state)
        self.hub.queue_changed()

    # Beside the lanes

    async def _keep_alive(self, running: Running) -> None:
        while True:
            await asyncio.sleep(self.heartbeat)
            await self._beat(running)

    async def _beat(self, running: Running) -> None:
        job_id = running.claim.job.id
        try:
            hold = await self.queue.heartbeat(running.claim.lease)
        except LeaseLost as error:
            log.warning("%s", error)
            running.lost = True
            self.cancel(job_id)
        except DatabaseError as error:
            log.warning("the lease of job %s cannot be renewed: %s", job_id, error)
        else:
            if hold.cancelling:  # another server was asked to
                self.cancel(job_id)

    async def _keep_house(self) -> None:
        """Now and then: take jobs back from servers that have died, and forget what is old."""
        rounds = 0
        while True:
            await asyncio.sleep(15)
            try:
                # This machine may have been asleep; its own jobs are not to be taken for dead.
                for running in list(self.running.values()):
                    await self._beat(running)
                if await self.queue.expire():
                    self.wake()
                if rounds % 240 == 0:
                    await self.journal.prune()
                    await self.history.prune(KEEP_HISTORY)
                rounds += 1
            except DatabaseError as error:
                log.warning("the database does not answer: %s", error)
