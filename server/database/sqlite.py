"""SQLite: one file, many readers, and one writer at a time that waits for the disk when it should."""

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import create_engine
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.event import listen
from sqlalchemy.pool import ConnectionPoolEntry

from server.database.errors import DatabaseUnusable

OLDEST_SQLITE = (3, 35, 0)
"""The first that returns the rows it changed."""
BUSY_SECONDS = 30.0
"""So long a process waits while another one writes to the same file."""
READERS = 4
JOURNAL_LIMIT = "PRAGMA journal_size_limit = 67108864"
"""What is left of the journal after a burst of writing, in bytes; otherwise it never shrinks."""
FULL_SYNC = "PRAGMA fullfsync = ON"
"""On macOS a plain sync leaves the data in the disk's own memory. Elsewhere this means nothing."""

T = TypeVar("T")


def prepare_file(file: Path) -> None:
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


class SqliteEngines:
    """Several readers and one writer, each on a thread of its own.

    SQLite lets one connection write at a time: the writes of this process wait for their thread, in order, instead of
    asking the file again and again whether it is their turn.
    """

    def __init__(self, url: URL) -> None:
        # Transactions are begun below: the library would begin them too late to take their turn.
        options: dict[str, Any] = {"connect_args": {"timeout": BUSY_SECONDS, "isolation_level": None}}
        self._read = create_engine(url, pool_size=READERS, max_overflow=0, **options)
        self._write = create_engine(url, pool_size=1, max_overflow=0, **options)
        self._write_soon = self._write.execution_options(durable=False)
        listen(self._read, "connect", _connected_for_reading)
        listen(self._write, "connect", _connected_for_writing)
        listen(self._write, "begin", _begin)
        self._readers = ThreadPoolExecutor(READERS, "latentloom-reads")
        self._writer = ThreadPoolExecutor(1, "latentloom-writes")

    async def read(self, work: Callable[[Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, _look, self._read, work)

    async def write(self, work: Callable[[Connection], T], durable: bool) -> T:
        engine = self._write if durable else self._write_soon
        return await asyncio.get_running_loop().run_in_executor(self._writer, _change, engine, work)

    async def close(self) -> None:
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._readers.shutdown()
        self._writer.shutdown()
        self._read.dispose()
        self._write.dispose()


def _look(engine: Engine, work: Callable[[Connection], T]) -> T:
    with engine.connect() as connection:
        return work(connection)


def _change(engine: Engine, work: Callable[[Connection], T]) -> T:
    with engine.begin() as connection:
        return work(connection)


def _connected_for_reading(connection: Any, record: ConnectionPoolEntry) -> None:
    _execute(connection, "PRAGMA query_only = ON")


def _connected_for_writing(connection: Any, record: ConnectionPoolEntry) -> None:
    _execute(connection, "PRAGMA foreign_keys = ON", "PRAGMA secure_delete = FAST", JOURNAL_LIMIT, FULL_SYNC)


def _execute(connection: Any, *statements: str) -> None:
    cursor = connection.cursor()
    for statement in statements:
        cursor.execute(statement)
    cursor.close()


def _begin(connection: Connection) -> None:
    # In WAL mode, FULL waits for the disk at every commit, NORMAL does not. It can only be said between transactions.
    wanted = "FULL" if connection.get_execution_options().get("durable", True) else "NORMAL"
    if connection.info.get("synchronous") != wanted:
        connection.exec_driver_sql(f"PRAGMA synchronous = {wanted}")
        connection.info["synchronous"] = wanted
    connection.exec_driver_sql("BEGIN IMMEDIATE")
