"""A worker as the server sees it: one process, from its start to its end, and the job it has."""

import asyncio
import logging
from asyncio import Future, Task
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Literal

from server.workers.deaths import cause_of, memory_kills
from server.workers.devices import NoDevice
from server.workers.errors import Cause, PoolClosed, WorkerCannotStart, WorkerDied
from server.workers.framing import BadFrame
from server.workers.messages import (
    Alive,
    CancelJob,
    CannotStart,
    Configure,
    Describe,
    Described,
    Device,
    Ended,
    Free,
    Freed,
    FromWorker,
    Happened,
    Inspect,
    Inspected,
    JobEvent,
    JobResult,
    Leaving,
    Logged,
    Ready,
    Refused,
    ResidentModel,
    RunJob,
    Stop,
)
from server.workers.options import PoolOptions
from server.workers.process import WorkerProcess
from server.workers.requests import Requests
from server.workers.ticket import Ticket

log = logging.getLogger("latentloom.workers")

State = Literal["starting", "idle", "busy", "leaving", "gone"]

DRAIN_SECONDS = 1.0
"""For how long the last words of a process that has ended are waited for."""


class LiveWorker:
    """One worker. Belongs to the event loop it was made on; nothing here blocks it.

    Args:
        identity: of the code that it will load, see `descriptions.py`.
        changed: is called whenever something about it is different.
    """

    def __init__(
        self, name: str, device: str, options: PoolOptions, identity: str, changed: Callable[[], None]
    ) -> None:
        self.name = name
        self.device = device
        self.identity = identity
        self.state: State = "starting"
        self.pid: int | None = None
        self.ticket: Ticket | None = None
        self.jobs = 0
        self.rss: int | None = None
        self.models: tuple[ResidentModel, ...] = ()
        self.died_over_job = False
        self.worn: str | None = None
        """Why it should be replaced before it is given another job."""
        self._options = options
        self._changed = changed
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._requests = Requests(self._say)
        self._process: WorkerProcess | None = None
        self._killed: Cause | None = None
        self._told_to_leave = False
        self._free = asyncio.Event()
        self._free.set()
        self._heard: float | None = None
        """When it was heard of last. Until it has said something, it is starting, and is given more time."""
        self._memory_kills = (0, 0)
        """The last but one, and the last look."""
        self._ready_at: float | None = None
        self._gone_at: float | None = None
        self._ready: Future[None] = loop.create_future()
        self.gone: Task[Cause | None] = loop.create_task(self._live())
        """Ends when the process has. None: it ended as it was told to."""

    @property
    def age(self) -> float:
        """For how many seconds it has been ready, or was."""
        return 0.0 if self._ready_at is None else (self._gone_at or self._loop.time()) - self._ready_at

    @property
    def is_ready(self) -> bool:
        """Whether it can answer."""
        return self.state in ("idle", "busy")

    @property
    def accepts(self) -> bool:
        """Whether it can be given a job now."""
        return self.state == "idle" and self.worn is None

    async def ready(self) -> None:
        """Wait until it can take jobs. Raises WorkerCannotStart."""
        try:
            async with asyncio.timeout(self._options.start_seconds):
                await asyncio.shield(self._ready)
        except TimeoutError:
            text = f"was not ready after {self._options.start_seconds:g} s"
            self._kill(Cause("start", text))
            await self.gone
            raise WorkerCannotStart(self.name, f"worker {self.name} {text}") from None

    # Jobs

    def begin(self, ticket: Ticket) -> None:
        """Give it a job. It must accept one. Raises ValueError if the job is too large to be said."""
        self._say(RunJob(job=ticket.job))
        self.ticket = ticket
        self._free.clear()
        self._become("busy")

    async def until_free(self) -> None:
        """Wait until it has no job any more."""
        await self._free.wait()

    def cancel(self) -> None:
        """Stop its job after the present step. A worker that takes too long for that is killed."""
        ticket = self.ticket
        if ticket is None or ticket.cancelled:
            return
        ticket.cancelled = True
        self._say(CancelJob(job_id=ticket.job.id))
        seconds = self._options.cancel_seconds
        if seconds is not None:
            self._loop.call_later(seconds, self._end_stubborn, ticket, seconds)

    def _end_stubborn(self, ticket: Ticket, seconds: float) -> None:
        if self.ticket is ticket:
            text = f"had to be killed, as its job went on for {seconds:g} s after it was cancelled"
            self._kill(Cause("stuck", text))

    # Requests

    async def describe(self) -> bytes:
        """What `/object_info` says, as JSON. Raises WorkerDied, RequestRefused."""
        return (await self._requests.ask(lambda request: Describe(request=request), Described)).content

    async def inspect(self) -> Device:
        """How its device is. Raises WorkerDied, RequestRefused."""
        return (await self._requests.ask(lambda request: Inspect(request=request), Inspected)).device

    async def free(self, models: bool, memory: bool) -> int:
        """Let go of models and results in memory, when its job is over. Returns bytes. Raises WorkerDied."""
        free = partial(Free, models=models, memory=memory)
        return (await self._requests.ask(lambda request: free(request=request), Freed)).nbytes

    # The end

    def leave(self) -> None:
        """Have it hand back its job after the present step, and end."""
        if self.state != "gone" and not self._told_to_leave:
            self._told_to_leave = True
            self._become("leaving")
            self._say(Stop())

    async def stop(self, seconds: float) -> None:
        """Have it leave, and kill it if it takes longer than so many seconds."""
        if self.state == "starting":
            self._kill(Cause("stuck", "was stopped before it was ready"))
        self.leave()
        await asyncio.wait([self.gone], timeout=seconds)
        if not self.gone.done():
            self._kill(Cause("stuck", f"had to be killed, as it went on for {seconds:g} s after it was told to stop"))
        await asyncio.wait([self.gone])

    def _kill(self, cause: Cause) -> None:
        if self._killed is None and self.state != "gone":
            self._killed = cause
            if self._process is None:
                self.gone.cancel()
            elif cause.kind == "hang":
                hanging = self._loop.create_task(self._process.kill_hanging())
                self.gone.add_done_callback(lambda _: hanging.cancel())
            else:
                self._process.kill()

    # The course of its life

    async def _live(self) -> Cause | None:
        cause, before_ready = None, f"worker {self.name} was stopped before it was ready"
        try:
            process = await WorkerProcess.start(self.name, self.device, self._job_id)
            cause = await self._see_through(process)
            before_ready = self._last_words(process, cause)
        except (OSError, NoDevice) as error:
            before_ready = f"worker {self.name} cannot be started: {error}"
        finally:
            self._be_gone(cause, before_ready)
        return cause

    async def _see_through(self, process: WorkerProcess) -> Cause | None:
        """Be there for a process until it has ended."""
        self._process, self.pid = process, process.pid
        self._memory_kills = (await asyncio.to_thread(memory_kills),) * 2
        listening = self._loop.create_task(self._listen(process))
        watching = self._loop.create_task(self._watch())
        try:
            options = self._options
            process.say(
                Configure(
                    name=self.name,
                    device=self.device,
                    options=options.worker,
                    orphan_seconds=2 * options.hang_seconds,
                )
            )
            code = await process.ended()
            process.kill()  # what it has started, which may hold the socket open
            await asyncio.wait([listening], timeout=DRAIN_SECONDS)
        except asyncio.CancelledError:
            process.kill()
            await process.ended()
            raise
        finally:
            watching.cancel()
            listening.cancel()
            process.close()
        return self._cause(code, await asyncio.to_thread(memory_kills))

    def _cause(self, code: int, kills: int) -> Cause | None:
        if self._killed is not None:
            return replace(self._killed, exit_code=code)
        if code == 0 and self.state == "leaving":
            return None
        return cause_of(code, kills - self._memory_kills[0])

    def _last_words(self, process: WorkerProcess, cause: Cause | None) -> str:
        # Who is killed had nothing to say about it, and a crash says where, which is in the log.
        said = process.printed.last_line if cause is not None and cause.kind == "exit" else None
        words = "ended" if cause is None else cause.text
        return f"worker {self.name} {words} before it was ready{f'; it said: {said}' if said else ''}"

    def _be_gone(self, cause: Cause | None, before_ready: str) -> None:
        ticket, self.ticket = self.ticket, None
        self.died_over_job = ticket is not None
        self._gone_at = self._loop.time()
        self._free.set()
        self._become("gone")
        if not self._ready.done():
            self._ready.set_exception(WorkerCannotStart(self.name, before_ready))
            self._ready.exception()  # nobody may be waiting
        self._requests.end(WorkerDied(self.name, cause) if cause else PoolClosed())
        if ticket is None:
            return
        if cause is None:
            ticket.end(JobResult(status="handed_back", worker=self.name))
        elif cause.kind == "stuck":
            ticket.end(JobResult(status="cancelled" if ticket.cancelled else "handed_back", worker=self.name))
        else:
            ticket.fail(WorkerDied(self.name, cause, ticket.job.id))

    async def _listen(self, process: WorkerProcess) -> None:
        try:
            while (messages := await process.hear()) is not None:
                self._heard = self._loop.time()
                for job_id, some in groupby(messages, lambda each: each.job_id if isinstance(each, Happened) else None):
                    if job_id is None:
                        for message in some:
                            self._take(message)
                    else:
                        self._tell(job_id, [each.event for each in some if isinstance(each, Happened)])
                await asyncio.sleep(0)  # let others have their turn, however much there is to hear
        except BadFrame as error:
            self._kill(Cause("nonsense", f"had to be killed, as it said something that is no message: {error}"))

    def _take(self, message: FromWorker) -> None:
        match message:
            case Happened():
                self._tell(message.job_id, [message.event])
            case Alive():
                self.rss, self.models = message.rss, message.models
                self._changed()
            case Ended():
                self._end_job(message)
            case Described() | Inspected() | Freed() | Refused():
                self._requests.answer(message)
            case Logged():
                extra = {"worker": self.name, "job": message.job_id}
                logging.getLogger(message.logger).log(message.level, "%s", message.message, extra=extra)
            case Ready():
                if self.state == "starting":
                    self._become("idle")
                self._ready_at = self._loop.time()
                with suppress(asyncio.InvalidStateError):
                    self._ready.set_result(None)
            case CannotStart():
                with suppress(asyncio.InvalidStateError):
                    self._ready.set_exception(WorkerCannotStart(self.name, message.message))
                    self._ready.exception()
            case Leaving():
                self._become("leaving")

    def _tell(self, job_id: str, events: Sequence[JobEvent]) -> None:
        ticket = self.ticket
        if ticket is not None and ticket.job.id == job_id:
            try:
                ticket.happened(events)
            except Exception:  # comes out of the job's end
                self.cancel()

    def _end_job(self, message: Ended) -> None:
        ticket = self.ticket
        if ticket is None or ticket.job.id != message.job_id:
            return
        self.ticket = None
        self._free.set()
        self.jobs += 1
        self.worn = self.worn or message.worn or self._worn()
        ticket.end(replace(message.result, worker=self.name))
        self._become("idle" if self.state == "busy" else self.state)

    def _worn(self) -> str | None:
        options = self._options
        if options.max_jobs is not None and self.jobs >= options.max_jobs:
            return f"it has run {self.jobs} jobs"
        if options.max_rss is not None and self.rss is not None and self.rss > options.max_rss:
            return f"it holds {self.rss / (1 << 20):,.0f} MiB of memory"
        return None

    async def _watch(self) -> None:
        """Kill it if nothing is heard of it for too long."""
        limit, tick = self._options.hang_seconds, min(1.0, self._options.hang_seconds / 4)
        while True:
            before = self._loop.time()
            await asyncio.sleep(tick)
            now = self._loop.time()
            if self._heard is None:
                continue
            if now - before > 2 * tick:
                self._heard = now  # the server itself was held up, and has not listened
            elif now - self._heard > limit:
                self._kill(Cause("hang", f"hung: it gave no sign of life for {limit:g} s"))
                return
            self._memory_kills = self._memory_kills[1], await asyncio.to_thread(memory_kills)

    def _become(self, state: State) -> None:
        if self.state != "gone":
            self.state = state
        self._changed()

    def _job_id(self) -> str | None:
        ticket = self.ticket
        return None if ticket is None else ticket.job.id

    def _say(self, message: "RunJob | CancelJob | Describe | Inspect | Free | Stop") -> None:
        if self._process is not None:
            self._process.say(message)
