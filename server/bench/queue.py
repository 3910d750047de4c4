"""The queue and its history: how fast jobs are taken, claimed, ended and found beside many others."""

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from click import ClickException

from server.database.chunks import chunks
from server.database.database import Database
from server.database.documents import Document
from server.database.errors import DatabaseUnavailable, DatabaseUnusable
from server.database.event_log import EventLog, NewEvent
from server.database.job_history import JobHistory
from server.database.job_queue import JobQueue
from server.database.jobs import Claim, NewJob, Outcome
from server.database.paging import JobFilter
from server.database.tallies import Counts

CLIENTS = 50
"""They submit at the same time, each one job after the other."""
EVENTS = 100
WORKFLOW = {str(node): {"class_type": "KSampler", "inputs": {"steps": 20, "cfg": 7.5}} for node in range(8)}

Say = Callable[[str], None]
Act = Callable[[], Awaitable[object]]


def measure(over: int, waiting: int, repeats: int, url: str | None, say: Say) -> None:
    """Print rates and medians.

    Args:
        url: an empty database, which keeps the jobs; a temporary file if left out.

    Raises:
        ClickException: the database cannot be used, or is not empty.
    """
    with TemporaryDirectory() as folder:
        try:
            asyncio.run(_measure(over, waiting, repeats, url or Path(folder) / "jobs.sqlite3", say))
        except (DatabaseUnavailable, DatabaseUnusable) as error:
            raise ClickException(str(error)) from error


async def _measure(over: int, waiting: int, repeats: int, place: str | Path, say: Say) -> None:
    database = await Database.open(place)
    try:
        bench = _Bench(database, repeats, say)
        await bench.fill(over, waiting)
        await bench.submitting()
        await bench.working()
        await bench.reading()
    finally:
        await database.close()


class _Bench:
    def __init__(self, database: Database, repeats: int, say: Say) -> None:
        self.queue, self.history, self.log = JobQueue(database), JobHistory(database), EventLog(database)
        self.repeats = repeats
        self.say = say
        self.made = 0

    def new_job(self) -> NewJob:
        """A job with a workflow that nobody else has."""
        self.made += 1
        return NewJob(workflow=Document.of({**WORKFLOW, "0": {"seed": self.made}}), label=f"a boat, the {self.made}th")

    async def fill(self, over: int, waiting: int) -> None:
        counts = await self.history.counts()
        if counts != Counts():
            raise ClickException("this database has jobs in it; give an empty one")
        for count in (over, waiting):
            await self.queue.cancel_waiting()
            for some in chunks(range(count)):
                await self.queue.submit([self.new_job() for _ in some])
        counts = await self.history.counts()
        size = len(json.dumps(WORKFLOW))
        self.say(
            f"beside {counts.cancelled} jobs that are over and {counts.queued} that wait, workflows of {size} bytes"
        )

    async def submitting(self) -> None:
        """Each submission is on disk before the next one of the same client."""

        async def client() -> None:
            for _ in range(self.repeats):
                await self.queue.submit([self.new_job()])

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        seconds = time.perf_counter() - began
        self.say(f"  {CLIENTS} clients submit at once      {CLIENTS * self.repeats / seconds:9.0f} jobs/s, committed")
        await self.time("one client submits", lambda: self.queue.submit([self.new_job()]))

    async def working(self) -> None:
        claims: list[Claim] = []

        async def claim() -> None:
            claimed = await self.queue.claim("bench")
            if claimed is not None:
                claims.append(claimed)

        await self.time("claim", claim)
        last = claims[-1].lease
        await self.time("heartbeat", lambda: self.queue.heartbeat(last))
        nothing = Document.of({})
        events = [NewEvent(last.job_id, "executed", nothing) for _ in range(EVENTS)]
        await self.time(f"log {EVENTS} events", lambda: self.log.append(events))
        await self.time(f"read {EVENTS} events", lambda: self.log.read(job_id=last.job_id, limit=EVENTS))
        await self.time("finish", lambda: self.queue.finish(claims.pop().lease, Outcome(state="done")))

    async def reading(self) -> None:
        (found,) = (await self.history.page(limit=1)).jobs
        first = await self.history.page()
        over, nowhere = JobFilter(states=["cancelled"]), JobFilter(search="nowhere")
        await self.time("one job by its id", lambda: self.history.job(found.id))
        await self.time("counts by state", self.history.counts)
        await self.time("page of 100, the newest", self.history.page)
        await self.time("page of 100, the next", lambda: self.history.page(after=first.next))
        await self.time("page of 100, the oldest", lambda: self.history.page(descending=False))
        await self.time("page of 100, of one state", lambda: self.history.page(over))
        await self.time("page of 100, by duration", lambda: self.history.page(sort="duration"))
        await self.time("page of 100, by urgency", lambda: self.history.page(sort="urgency", descending=False))
        await self.time("page of a search in vain", lambda: self.history.page(nowhere))

    async def time(self, name: str, act: Act) -> None:
        times: list[float] = []
        for _ in range(self.repeats):
            began = time.perf_counter()
            await act()
            times.append((time.perf_counter() - began) * 1000)
        self.say(f"  {name:27s} {statistics.median(times):9.2f} ms, at most {max(times):.1f}")
