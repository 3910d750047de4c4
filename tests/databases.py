"""A database with all that is kept in it, as tests see it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Table, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from server.database.api_keys import ApiKeys
from server.database.database import Database
from server.database.documents import Document
from server.database.event_log import EventLog
from server.database.job_history import JobHistory
from server.database.job_queue import JobQueue
from server.database.jobs import Accepted, Claim, NewJob
from server.database.webhooks import Webhooks

WORKFLOW = Document.of({"1": {"class_type": "SaveImage", "inputs": {}}})


@dataclass
class Clock:
    """A clock that is set by hand."""

    now: datetime = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class World:
    """A database with all that is kept in it, as one process sees it."""

    database: Database
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.queue = JobQueue(self.database)
        self.history = JobHistory(self.database)
        self.events = EventLog(self.database)
        self.webhooks = Webhooks(self.database)
        self.keys = ApiKeys(self.database)

    async def submit(self, **job: Any) -> Accepted:
        """A job of a workflow that does not matter."""
        (accepted,) = await self.queue.submit([new_job(**job)])
        return accepted

    async def claimed(self, worker: str = "worker", **job: Any) -> Claim:
        """A job that was submitted and that a worker holds."""
        await self.submit(**job)
        claim = await self.queue.claim(worker)
        assert claim is not None
        return claim

    async def count(self, table: Table) -> int:
        """The rows of a table."""
        query = select(func.count()).select_from(table)
        return (await self.database.read(lambda connection: connection.execute(query))).scalar_one()

    async def states(self) -> list[str]:
        """The states of all jobs in the order in which they were submitted."""
        return [job.state for job in (await self.history.page(descending=False)).jobs]


def new_job(workflow: Document = WORKFLOW, **job: Any) -> NewJob:
    return NewJob(workflow=workflow, **job)


@asynccontextmanager
async def opened(url: str, clock: Clock | None = None) -> AsyncGenerator[World]:
    """A database as one more process would open it."""
    clock = clock or Clock()
    database = await Database.open(url, clock)
    try:
        yield World(database, clock)
    finally:
        await database.close()


async def on_server(server: str, statement: str) -> None:
    """Change the PostgreSQL server itself."""
    engine = create_async_engine(make_url(server).set(drivername="postgresql+asyncpg"), isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.exec_driver_sql(statement)
    await engine.dispose()


def beside(server: str, name: str) -> str:
    """Another database of the same server."""
    return make_url(server).set(database=name).render_as_string(hide_password=False)
