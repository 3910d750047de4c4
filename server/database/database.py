"""An open database: SQLite in a file or PostgreSQL, up to date, with transactions that end one way or the other.

Everything here belongs to the event loop it was opened in. SQLite works on threads of its own.
"""

import asyncio
import os
import random
import sqlite3
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, closing, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.event import listen
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from server.database.errors import DatabaseUnavailable, DatabaseUnusable
from server.database.migrate import bring_up_to_date, is_up_to_date

OLDEST_SQLITE = (3, 35, 0)
"""The first that returns the rows it changed."""
BUSY_SECONDS = 30.0
"""So long a process waits while another one writes to the same file."""
READERS = 4
CONNECT_SECONDS = 10
TRIES = 8
# PostgreSQL's codes for a transaction that met another one and was rolled back: serialization failure, deadlock, and a
# row that was deleted while it was being referred to. A second try may well succeed.
COLLISIONS = frozenset({"40001", "40P01", "23503"})
# Classes of its codes. Nobody of this name may come in, or there is no such database; connections, resources, locks,
# operators and disks that fail.
CLOSED_TO_US = frozenset({"28", "3D"})
OUT_OF_ORDER = frozenset({"08", "25", "53", "55", "57", "58"})
JOURNAL_LIMIT = "PRAGMA journal_size_limit = 67108864"
"""What is left of the journal after a burst of writing, in bytes; otherwise it never shrinks."""
FULL_SYNC = "PRAGMA fullfsync = ON"
"""On macOS a plain sync leaves the data in the disk's own memory. Elsewhere this means nothing."""
DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}

T = TypeVar("T")
Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


class Collision(Exception):
    """The transaction met another one: it is to be rolled back and tried again."""


@dataclass(frozen=True, slots=True)
class _Engines:
    """Ways to connect: for reading, for writing what must survive a power cut, and for what need not."""

    read: AsyncEngine
    write: AsyncEngine
    write_soon: AsyncEngine


class Database:
    """An open database. `open` makes one; `close` waits for what was begun."""

    def __init__(self, place: Path | str, clock: Clock) -> None:
        url = _url(place)
        self._file = Path(url.database or "") if url.get_backend_name() == "sqlite" else None
        self.where = str(self._file or url.render_as_string())
        self.now = clock
        self._tasks = set[asyncio.Task[Any]]()
        self._closed = False
        self._engines = _engines_for_sqlite(url) if self._file else _engines_for_postgresql(url)
        # SQLite lets one connection write at a time. Those of this process wait here, in order, instead of asking
        # the file again and again whether it is their turn.
        self._turn: AbstractAsyncContextManager[None] = asyncio.Lock() if self._file else nullcontext()

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
                await asyncio.to_thread(_prepare, database._file)
            if not await database.read(lambda connection: connection.run_sync(is_up_to_date)):
                await database.write(lambda connection: connection.run_sync(bring_up_to_date, database.where))
        except BaseException:
            await database.close()
            raise
        return database

    async def close(self) -> None:
        """Finish what was begun, and let go of the database."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._closed = True
        await self._engines.read.dispose()
        await self._engines.write.dispose()

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

    async def read(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Let `work` look. Each of its statements sees what is committed when it starts.

        Raises:
            DatabaseUnavailable: the database does not answer.
        """
        return await asyncio.shield(self.begin(self._read(work)))

    async def write(self, work: Callable[[AsyncConnection], Awaitable[T]], durable: bool = True) -> T:
        """Let `work` change things in one transaction. It may be called again when it meets another transaction.

        Args:
            durable: whether it is on disk when this returns. What is not would be lost in a power cut, but not
                when a process is killed.

        Raises:
            DatabaseUnavailable: the database does not answer or takes nothing more, for example on a full disk.
        """
        return await asyncio.shield(self.begin(self._write(work, durable)))

    async def _read(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        try:
            async with self._engines.read.connect() as connection:
                return await work(connection)
        except (DBAPIError, OSError) as error:
            raise self._said(error) from error

    async def _write(self, work: Callable[[AsyncConnection], Awaitable[T]], durable: bool) -> T:
        engine = self._engines.write if durable else self._engines.write_soon
        for tries in range(1, TRIES + 1):
            try:
                async with self._turn, engine.begin() as connection:
                    return await work(connection)
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


def _collided(error: Exception) -> bool:
    return isinstance(error, Collision) or _code(error) in COLLISIONS


def _code(error: Exception) -> str:
    """PostgreSQL's code of an error; SQLite has none."""
    return getattr(error.orig, "sqlstate", None) or "" if isinstance(error, DBAPIError) else ""


def _url(place: Path | str) -> URL:
    if isinstance(place, Path):
        return URL.create("sqlite+aiosqlite", database=str(place))
    try:
        url = make_url(place)
    except ArgumentError as error:
        raise DatabaseUnusable("", "its URL should look like sqlite:///file or postgresql://user@host/name") from error
    backend, _, driver = url.drivername.partition("+")
    if backend not in DRIVERS or driver and url.drivername not in DRIVERS.values():
        raise DatabaseUnusable(url.render_as_string(), f"use {' or '.join(sorted(set(DRIVERS.values())))}")
    if backend == "sqlite" and (not url.database or ":memory:" in url.database):
        raise DatabaseUnusable(url.render_as_string(), "jobs are to outlive the process, so it has to be a file")
    return url.set(drivername=DRIVERS[backend])


# SQLite


def _prepare(file: Path) -> None:
    """Make the file one that many may read while one writes, and that is nobody else's business."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        needed = ".".join(map(str, OLDEST_SQLITE))
        raise DatabaseUnusable(str(file), f"SQLite {needed} or newer is needed, this is {sqlite3.sqlite_version}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
        with closing(sqlite3.connect(file, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
            mode = _in_wal_mode(connection)
    except (OSError, sqlite3.Error) as error:
        raise DatabaseUnusable(str(file), str(error)) from error
    if mode != "wal":
        raise DatabaseUnusable(str(file), "SQLite cannot share memory there; a folder on a local disk will do")


def _in_wal_mode(connection: sqlite3.Connection) -> str:
    """SQLite does not wait by itself while another process turns a new file into a database."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(0.01)


def _engines_for_sqlite(url: URL) -> _Engines:
    # Transactions are begun below: the library would begin them too late to take their turn.
    options: dict[str, Any] = {"connect_args": {"timeout": BUSY_SECONDS, "isolation_level": None}}
    read = create_async_engine(url, pool_size=READERS, max_overflow=0, pool_timeout=None, **options)
    write = create_async_engine(url, pool_size=1, max_overflow=0, pool_timeout=None, **options)
    listen(read.sync_engine, "connect", _connected_for_reading)
    listen(write.sync_engine, "connect", _connected_for_writing)
    listen(write.sync_engine, "begin", _begin_in_sqlite)
    return _Engines(read, write, write.execution_options(durable=False))


def _connected_for_reading(connection: Any, record: ConnectionPoolEntry) -> None:
    _execute(connection, "PRAGMA query_only = ON")


def _connected_for_writing(connection: Any, record: ConnectionPoolEntry) -> None:
    _execute(connection, "PRAGMA foreign_keys = ON", "PRAGMA secure_delete = FAST", JOURNAL_LIMIT, FULL_SYNC)


def _execute(connection: Any, *statements: str) -> None:
    cursor = connection.cursor()
    for statement in statements:
        cursor.execute(statement)
    cursor.close()


def _begin_in_sqlite(connection: Connection) -> None:
    # In WAL mode, FULL waits for the disk at every commit, NORMAL does not. It can only be said between transactions.
    wanted = "FULL" if connection.get_execution_options().get("durable", True) else "NORMAL"
    if connection.info.get("synchronous") != wanted:
        connection.exec_driver_sql(f"PRAGMA synchronous = {wanted}")
        connection.info["synchronous"] = wanted
    connection.exec_driver_sql("BEGIN IMMEDIATE")


# PostgreSQL


def _engines_for_postgresql(url: URL) -> _Engines:
    try:
        # The ping costs little beside a commit, and a server that was restarted is not noticed by anybody.
        write = create_async_engine(url, pool_pre_ping=True, connect_args={"timeout": CONNECT_SECONDS})
    except ImportError as error:
        why = f"the library {error.name} is missing (pip install 'latentloom[postgresql]')"
        raise DatabaseUnusable(url.render_as_string(), why) from error
    listen(write.sync_engine, "begin", _begin_in_postgresql)
    return _Engines(
        write.execution_options(isolation_level="AUTOCOMMIT"), write, write.execution_options(durable=False)
    )


def _begin_in_postgresql(connection: Connection) -> None:
    if not connection.get_execution_options().get("durable", True):
        connection.exec_driver_sql("SET LOCAL synchronous_commit TO off")
