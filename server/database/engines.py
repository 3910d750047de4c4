"""Which database is meant, and what has to be known of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError

from server.database.errors import DatabaseUnusable

USUAL_FILE = "jobs.sqlite3"
"""In the data folder."""
DRIVERS = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}


T = TypeVar("T")


class Engines(Protocol):
    """Ways to connect, which belong to an event loop and never block it.

    `work` looks or changes, in plain SQLAlchemy. It is a function without `await`, so that the whole of it can be done
    on a thread at once: going to a thread and back for each statement costs more than most statements do.
    """

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Let `work` look. Each of its statements sees what is committed when it starts."""
        ...

    async def write(self, work: Callable[[Connection], T], durable: bool) -> T:
        """Let `work` change things in one transaction.

        Args:
            durable: whether it must survive a power cut when this returns.
        """
        ...

    async def close(self) -> None:
        """Let go of all connections. Nothing may be under way."""
        ...


def place_of(stated: str | None, data: Path) -> Path | str:
    """The database that is meant: a URL, a file, or the usual one in a data folder."""
    if stated is None:
        return data / USUAL_FILE
    return stated if "://" in stated else Path(stated).absolute()


def read_url(place: Path | str) -> URL:
    """The URL of a file, or a URL as people write it. Raises DatabaseUnusable."""
    if isinstance(place, Path):
        return URL.create("sqlite+pysqlite", database=str(place))
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
