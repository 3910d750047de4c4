"""Where jobs are handed in and asked for: what the handlers of prompts, the queue and jobs have in common."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from aiohttp import WSCloseCode, hdrs, web

from server.database import errors
from server.database.cancelling import Cancelled
from server.database.errors import DatabaseError, JobNotFound
from server.database.event_log import EventLog
from server.database.job_history import JobHistory
from server.database.job_queue import JobQueue
from server.database.jobs import ENDINGS, Accepted, Claim, Job, NewJob
from server.database.webhooks import Webhooks
from server.web.dispatcher import Dispatcher
from server.web.hub import Hub
from server.web.intake import prepared
from server.web.journal import Journal
from server.web.library import Library, Shelf
from server.web.messenger import Messenger
from server.web.problems import LOGGER, Refused
from server.web.public_addresses import PrivateAddress
from server.web.running_jobs import Prepared
from server.workers.pool import WorkerPool

LOOK_SECONDS = 2.0
"""Whoever waits for a job looks into the history so often: another server of the same database may have run it."""

# Nobody knows when it will be better: seconds after which it is worth a try.
AGAIN_SOON: Mapping[str, str] = {hdrs.RETRY_AFTER: "5"}
AGAIN_LATER: Mapping[str, str] = {hdrs.RETRY_AFTER: "60"}

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Desk:
    """Queue, history, workers and listeners.

    Args:
        most_unfinished: how many jobs an owner may have waiting and running.
    """

    queue: JobQueue
    history: JobHistory
    events: EventLog
    journal: Journal
    hub: Hub
    dispatcher: Dispatcher
    library: Library
    pool: WorkerPool
    webhooks: Webhooks
    messenger: Messenger
    most_unfinished: int | None = None
    sockets: set[web.WebSocketResponse] = field(default_factory=set[web.WebSocketResponse])
    """Open websockets, to be closed at the end."""
    _errands: set["asyncio.Task[Any]"] = field(default_factory=set["asyncio.Task[Any]"])

    async def shelf(self, owner: str) -> Shelf:
        """The nodes, and the folders of an owner. Refuses when somebody's own nodes cannot be loaded."""
        try:
            return (await self.library.shelf()).of(owner)
        except Exception as error:
            LOGGER.error("the nodes cannot be loaded: %s", error)
            raise Refused(503, "the nodes of this server cannot be loaded; its log says why") from error

    async def submit(self, jobs: Sequence[NewJob]) -> Sequence[Accepted]:
        """Queue jobs. They are on disk when this returns. Raises DatabaseError; refuses webhooks that cannot be."""
        for url in {job.webhook.url for job in jobs if job.webhook is not None}:
            try:
                self.messenger.refuse(url)
            except (ValueError, PrivateAddress) as error:
                raise Refused(400, f"webhook.url: {error}") from error
        accepted = await self.queue.submit(jobs, self.most_unfinished)
        self.hub.queue_changed()
        self.dispatcher.wake()
        return accepted

    async def cancel(self, job_ids: Iterable[str], owner: str) -> Mapping[str, Cancelled]:
        """Stop jobs, whether they wait or run. Raises DatabaseError."""
        answers = await self.queue.cancel(job_ids, owner)
        for job_id, answer in answers.items():
            if answer == "asked":
                self.dispatcher.cancel(job_id)
            if answer == "cancelled":
                self.dispatcher.ended(job_id)
        self.hub.queue_changed()
        return answers

    async def outcome(self, job_id: str, owner: str, ended: asyncio.Event, seconds: float) -> Job:
        """A job when it has ended, or as it is after so many seconds. Raises DatabaseError."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while True:
            wait = min(LOOK_SECONDS, until - loop.time())
            if wait > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), wait)
            last = ended.is_set() or loop.time() >= until  # before looking: what ends meanwhile is looked at once more
            job = await self.history.job(job_id, owner)
            if job.state in ENDINGS or last:
                return job

    def begin(self, errand: Awaitable[Any]) -> None:
        """Have something done that nobody waits for."""
        task = asyncio.ensure_future(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    async def say_goodbye(self) -> None:
        """Close all websockets: whoever is there comes back when there is a server again."""
        goodbye = (socket.close(code=WSCloseCode.GOING_AWAY, message=b"the server stops") for socket in self.sockets)
        await asyncio.gather(*goodbye, return_exceptions=True)

    def running_of(self, owner: str) -> Sequence[str]:
        """The jobs of an owner that run here."""
        return [job_id for job_id, running in self.dispatcher.running.items() if running.owner == owner]


async def prepare(library: Library, claim: Claim, previews: bool) -> Prepared:
    """What a worker is to run of a claimed job. Raises CannotRun."""
    shelf = (await library.shelf()).of(claim.job.owner)
    return await asyncio.to_thread(prepared, claim, shelf, previews)


def refused(error: DatabaseError) -> Refused:
    """What a client is told of what the database refuses."""
    match error:
        case JobNotFound():
            return Refused(404, "Job not found")
        case errors.JobNotRetryable() | errors.JobExists():
            return Refused(409, str(error))
        case errors.TooManyJobs():
            return Refused(429, str(error), (), AGAIN_SOON)
        case errors.QueueDraining():
            return Refused(503, str(error), (), AGAIN_LATER)
        case errors.WrongRequest():
            return Refused(400, str(error))
        case _:
            # Its own sentence names files and addresses of the server.
            LOGGER.error("%s", error)
            return Refused(503, "the database of this server does not answer; try again in a while", (), AGAIN_SOON)


def telling(handler: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """A handler that tells what the database refuses."""

    @wraps(handler)
    async def told(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await handler(*args, **kwargs)
        except DatabaseError as error:
            raise refused(error) from error

    return told
