"""Fixtures: every test that takes a `url` or a `world` runs on SQLite, and on PostgreSQL where there is one.

LATENTLOOM_TEST_POSTGRESQL is the URL of a PostgreSQL server whose user may create databases; `.ci/with_postgresql`
starts one for a while.
"""

import gc
import os
import secrets
import signal
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from torch import Tensor

    from tests.databases import World

# In the background of a script nobody hears Ctrl-C; the programs that we start should.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if "PYTEST_XDIST_WORKER" in os.environ:  # several of us share the processor: before torch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

VARIABLE = "LATENTLOOM_TEST_POSTGRESQL"
NO_SERVER = f"{VARIABLE} is not set"

# No test is about how long it takes.
settings.register_profile("latentloom", deadline=None)
settings.load_profile("latentloom")


@pytest.fixture(scope="module", autouse=True)
def what_was_there_before_is_not_looked_through() -> Generator[None]:
    """Tests that call the collector would else wait for it to go through all of torch, each time."""
    gc.collect()
    gc.freeze()
    yield


@pytest.fixture(scope="module")
def packed_as_large_ones() -> Generator[None]:
    """Small networks have their weights in order, as those of real models do, which are filed in other types."""
    from nodes import materialise, packed_layers

    def is_of(form: materialise.Form, tensor: "Tensor") -> bool:
        return False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_layers, "LEAST", 8)
        patch.setattr(materialise.Form, "is_of", is_of)
        yield


@pytest.fixture
def anyio_backend() -> str:
    """What runs the tests that are marked with `anyio`."""
    return "asyncio"


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[str]:
    """An empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'jobs.sqlite3'}"
        return
    server = os.environ.get(VARIABLE)
    if not server:
        pytest.skip(NO_SERVER)
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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say it aloud when PostgreSQL was left out."""
    left_out = [report for report in terminalreporter.stats.get("skipped", []) if NO_SERVER in str(report.longrepr)]
    if left_out:
        terminalreporter.write_line(f"{len(left_out)} tests were NOT RUN with PostgreSQL: {NO_SERVER}", red=True)
