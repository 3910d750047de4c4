"""Which database is meant, and the ways to connect to it."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine

from server.database.errors import DatabaseUnusable

USUAL_FILE = "jobs.sqlite3"
"""In the data folder."""
DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}


@dataclass(frozen=True, slots=True)
class Engines:
    """Ways to connect: for reading, for writing what must survive a power cut, and for what need not."""

    read: AsyncEngine
    write: AsyncEngine
    write_soon: AsyncEngine


def place_of(stated: str | None, data: Path) -> Path | str:
    """The database that is meant: a URL, a file, or the usual one in a data folder."""
    if stated is None:
        return data / USUAL_FILE
    return stated if "://" in stated else Path(stated).absolute()


def read_url(place: Path | str) -> URL:
    """The URL of a file, or a URL as people write it. Raises DatabaseUnusable."""
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
