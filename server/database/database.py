"""An open database: SQLite in a file or PostgreSQL, up to date, with transactions that end one way or the other.

Everything here belongs to the event loop it was opened in. What is done in a transaction is a plain function, which for
SQLite runs on a thread of its own: it must not touch what belongs to the event loop.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from server.database.engines import Engines, read_url
from server.database.errors import DatabaseUnavailable, DatabaseUnusable
from server.database.migrate import bring_up_to_date, is_up_to_date
from server.database.sqlite import SqliteEngines, prepare_file

TRIES = 8
# PostgreSQL's codes for a transaction that met another one and was rolled back: serialization failure, deadlock, and a
# row that was deleted while it was being referred to. A second try may well succeed.
COLLISIONS = frozenset({"40001", "40P01", "23503"})
# Classes of its codes. Nobody of this name may come in, or there is no such database; connections, resources, locks,
# operators and disks that fail.
CLOSED_TO_US = frozenset({"28", "3D"})
OUT_OF_ORDER = frozenset({"08", "25", "53", "55", "57", "58"})

T = TypeVar("T")
Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


class Collision(Exception):
    """The transaction met another one: it is to be rolled back and tried again."""


class Database:
    """An open database. `open` makes one; `close` waits for what was begun."""

    def __init__(self, place: Path | str, clock: Clock) -> None:
        url = read_url(place)
        self._file = Path(url.database or "") if url.get_backend_name() == "sqlite" else None
        self.where = str(self._file or url.render_as_string())
        self.now = clock
        self._tasks = set[asyncio.Task[Any]]()
        self._closed = False
        self._engines: Engines = SqliteEngines(url) if self._file else _postgresql(url)

    @staticmethod
    async def open(place: Path | str, clock: Clock = utc_now) -> "Database":
        """Open a database, make it if there is none, and bring its tables up to date.

        Several processes may do so at once.

        Args:
            place: a file, or a URL: `sqlite:///file` or `postgresql+asyncpg://user:password@host/name`.
            clock: tells the time in UTC. The clocks of machines that share a database should agree to a second.

        Raises:
            DatabaseUnusable: the URL is wrong, a library is missing, the file is no database, or the tables are those
                of a newer version.
            DatabaseUnavailable: the server does not answer, or the file cannot be written.
        """
        database = Database(place, clock)
        try:
            if database._file:
                await asyncio.to_thread(prepare_file, database._file)
            if not await database.read(is_up_to_date):
                await database.write(partial(bring_up_to_date, where=database.where))
        except BaseException:
            await database.close()
            raise
        return database

    async def close(self) -> None:
        """Finish what was begun, and let go of the database."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._closed = True
        await self._engines.close()

    def begin(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Start something that `close` waits for, and that is finished though the one who waits for it is cancelled."""
        if self._closed:
            work.close()
            raise DatabaseUnavailable(self.where, "it was closed")
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # so that nobody complains of an error that no one was left to hear

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Let `work` look. Each of its statements sees what is committed when it starts.

        Raises:
            DatabaseUnavailable: the database does not answer.
        """
        return await asyncio.shield(self.begin(self._read(work)))

    async def write(self, work: Callable[[Connection], T], durable: bool = True) -> T:
        """Let `work` change things in one transaction. It may be called again when it meets another transaction.

        Args:
            durable: whether it is on disk when this returns. What is not would be lost in a power cut, but not
                when a process is killed.

        Raises:
            DatabaseUnavailable: the database does not answer or takes nothing more, for example on a full disk.
        """
        return await asyncio.shield(self.begin(self._write(work, durable)))

    async def _read(self, work: Callable[[Connection], T]) -> T:
        try:
            return await self._engines.read(work)
        except (DBAPIError, OSError) as error:
            raise self._said(error) from error

    async def _write(self, work: Callable[[Connection], T], durable: bool) -> T:
        for tries in range(1, TRIES + 1):
            try:
                return await self._engines.write(work, durable)
            except (DBAPIError, OSError, Collision) as error:
                if not _collided(error) or tries == TRIES:
                    raise self._said(error) from error
            await asyncio.sleep(random.uniform(0, 0.01 * 2**tries))
        raise AssertionError("the last try returned or raised")

    def _said(self, error: Exception) -> Exception:
        """What a person is told of an error; one that is our own mistake stays what it is."""
        if isinstance(error, Collision):
            return DatabaseUnavailable(self.where, "too many changed the same thing at once")
        if not isinstance(error, DBAPIError):
            return DatabaseUnavailable(self.where, str(error) or "it took too long")
        kind = _code(error)[:2]
        if kind in CLOSED_TO_US:
            return DatabaseUnusable(self.where, str(error.orig))
        if isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated or kind in OUT_OF_ORDER:
            return DatabaseUnavailable(self.where, str(error.orig))
        return error


def _postgresql(url: URL) -> Engines:
    # Where nobody asks for it, a server need not wait for what it imports.
    from server.database.postgresql import PostgresqlEngines

    return PostgresqlEngines(url)


def _collided(error: Exception) -> bool:
    return isinstance(error, Collision) or _code(error) in COLLISIONS


def _code(error: Exception) -> str:
    """PostgreSQL's code of an error; SQLite has none."""
    return getattr(error.orig, "sqlstate", None) or "" if isinstance(error, DBAPIError) else ""
