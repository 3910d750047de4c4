"""Fixtures: every test that takes a `url` or a `world` runs on SQLite, and on PostgreSQL where there is one.

LATENTLOOM_TEST_POSTGRESQL is the URL of a PostgreSQL server whose user may create databases; `.ci/with_postgresql`
starts one for a while.
"""

import os
import secrets
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.databases import World

VARIABLE = "LATENTLOOM_TEST_POSTGRESQL"


@pytest.fixture
def anyio_backend() -> str:
    """What runs the tests that are marked with `anyio`."""
    return "asyncio"


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> AsyncGenerator[str]:
    """An empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'jobs.sqlite3'}"
        return
    server = os.environ.get(VARIABLE)
    if not server:
        with capfd.disabled():
            print(f"\nNOT TESTED with PostgreSQL, for {VARIABLE} is not set: {request.node.name}")
        pytest.skip(f"{VARIABLE} is not set")
    from tests.databases import beside, on_server

    name = f"test_{secrets.token_hex(8)}"
    await on_server(server, f"CREATE DATABASE {name}")
    yield beside(server, name)
    await on_server(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def world(url: str) -> "AsyncGenerator[World]":
    """An empty database, opened."""
    from tests.databases import opened

    async with opened(url) as opened_world:
        yield opened_world
