import asyncio
import random
import re
import resource
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, func, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.event import listen, remove

from server.database.database import Database
from server.database.documents import Document
from server.database.errors import DatabaseUnavailable, DatabaseUnusable
from server.database.event_log import NewEvent
from server.database.indexes import metadata
from server.database.jobs import NewWebhook, Outcome
from server.database.migrate import MIGRATIONS, NEWEST, REVISION_TABLE
from server.database.paging import JobFilter
from server.database.tables import job, tally
from tests.databases import World, new_job, opened

pytestmark = pytest.mark.anyio


# Opening


async def test_jobs_outlive_the_process(url: str):
    async with opened(url) as world:
        kept = await world.submit(label="kept")
    async with opened(url) as world:
        assert (await world.history.job(kept.id)).label == "kept"


async def test_many_may_open_a_new_database_at_once(url: str):
    databases = await asyncio.gather(*(Database.open(url) for _ in range(5)))
    for database in databases:
        await World(database).submit()
    assert (await World(databases[0]).history.counts()).queued == 5
    await asyncio.gather(*(database.close() for database in databases))


async def test_a_file_is_nobody_elses_business(tmp_path: Path):
    database = await Database.open(tmp_path / "new folder" / "50% jobs?.sqlite3")
    await World(database).submit()
    files = [*(tmp_path / "new folder").iterdir()]
    assert {path.name for path in files} >= {"50% jobs?.sqlite3"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    await database.close()


async def test_the_tables_in_the_code_are_those_that_the_migrations_make(world: World):
    def differences(connection: Any) -> Any:
        context = MigrationContext.configure(connection, opts={"version_table": REVISION_TABLE})
        return compare_metadata(context, metadata)

    assert await world.database.read(differences) == []


def test_the_newest_migration_is_the_one_that_the_code_is_written_for():
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [NEWEST]


async def test_a_database_of_a_newer_version_is_refused(url: str):
    async with opened(url) as world:
        newer = text(f"UPDATE {REVISION_TABLE} SET version_num = '9999'")
        await world.database.write(lambda connection: connection.execute(newer))
    with pytest.raises(DatabaseUnusable, match="a newer version of Latentloom has changed it"):
        await Database.open(url)


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path):
    (tmp_path / "text").write_text("this is no database " * 1000)
    for place in (tmp_path / "text", tmp_path, tmp_path / "text" / "below"):
        with pytest.raises(DatabaseUnusable, match="cannot be used"):
            await Database.open(place)


async def test_tables_of_another_program_are_left_alone(tmp_path: Path):
    with closing(sqlite3.connect(tmp_path / "other.sqlite3")) as other:
        other.execute("CREATE TABLE job (id INTEGER)")
    with pytest.raises(DatabaseUnusable, match="could not be brought up to date"):
        await Database.open(tmp_path / "other.sqlite3")
    with closing(sqlite3.connect(tmp_path / "other.sqlite3")) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("job",)]


@pytest.mark.parametrize(
    "place", ["nonsense", "mysql://h/n", "sqlite://", "sqlite:///:memory:", "postgresql+psycopg://h/n"]
)
async def test_a_url_that_cannot_be_is_refused(place: str):
    with pytest.raises(DatabaseUnusable):
        await Database.open(place)


async def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(DatabaseUnusable, match=r"asyncpg is missing \(pip install 'latentloom\[postgresql\]'\)"):
        await Database.open("postgresql://me@127.0.0.1/jobs")


async def test_a_server_that_does_not_answer_is_named_without_its_password():
    with pytest.raises(DatabaseUnavailable) as refusal:
        await Database.open("postgresql://me:hush@127.0.0.1:1/jobs")
    assert "127.0.0.1:1/jobs" in str(refusal.value)
    assert "hush" not in str(refusal.value)


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("wrong", [{"database": "nowhere"}, {"username": "nobody", "password": "hush"}])
async def test_a_server_that_lets_nobody_in_is_told_from_one_that_does_not_answer(url: str, wrong: dict[str, Any]):
    with pytest.raises(DatabaseUnusable, match="nowhere|nobody"):
        await Database.open(make_url(url).set(**wrong).render_as_string(hide_password=False))


def test_opening_a_database_imports_neither_alembic_nor_torch(tmp_path: Path):
    program = (
        "import asyncio, sys; from pathlib import Path; from server.database.database import Database\n"
        "async def open(): await (await Database.open(Path(sys.argv[1]))).close()\n"
        "asyncio.run(open()); print(sorted({'alembic', 'torch', 'sqlalchemy'} & set(sys.modules)))"
    )
    opening = [sys.executable, "-c", program, str(tmp_path / "jobs.sqlite3")]
    first, second = (subprocess.run(opening, capture_output=True, text=True, check=True) for _ in range(2))
    assert first.stdout == "['alembic', 'sqlalchemy']\n"
    assert second.stdout == "['sqlalchemy']\n"


def test_a_job_can_be_described_without_a_database():
    program = "import sys, server.database.jobs; print('sqlalchemy' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"


# Transactions


@contextmanager
def statements() -> Generator[list[tuple[str, Any]]]:
    """What the databases are told meanwhile, each with its parameters."""
    told: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        told.append((statement, parameters[0] if many else parameters))

    listen(Engine, "before_cursor_execute", note)
    yield told
    remove(Engine, "before_cursor_execute", note)


async def test_a_job_is_on_disk_before_it_is_accepted_and_a_heartbeat_need_not_be(world: World):
    claim = await world.claimed()
    is_sqlite = not world.database.where.startswith("postgresql")
    with statements() as told:
        await world.queue.heartbeat(claim.lease)
        soon = len(told)
        await world.submit()
    if is_sqlite:
        levels = [statement for statement, _ in told if "synchronous" in statement]
        assert levels == ["PRAGMA synchronous = FULL"]  # the claim before had set the other
    else:
        assert "SET LOCAL synchronous_commit TO off" in [statement for statement, _ in told[:soon]]
        assert not [statement for statement, _ in told[soon:] if "synchronous" in statement]


async def test_callers_that_give_up_leave_nothing_half_done(url: str):
    chance = random.Random(3)

    async def give_up(work: Any) -> None:
        task = asyncio.ensure_future(work)
        for _ in range(chance.randrange(40)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async with opened(url) as world:
        for _ in range(30):
            works = [world.submit(), world.queue.claim("worker"), world.history.page(), world.queue.cancel_waiting()]
            await asyncio.gather(*(give_up(work) for work in works))
        await world.submit()
    async with opened(url) as world:
        query = select(job.c.owner, job.c.state, func.count()).group_by(job.c.owner, job.c.state)
        counted = await world.database.read(lambda connection: connection.execute(query))
        noted = await world.database.read(lambda connection: connection.execute(select(tally).where(tally.c.jobs != 0)))
        assert {*map(tuple, counted)} == {*map(tuple, noted)}


async def test_closing_waits_for_what_was_begun(url: str):
    async with opened(url) as world:
        begun = [asyncio.create_task(world.submit()) for _ in range(10)]
        await asyncio.sleep(0)
    await asyncio.gather(*begun)
    async with opened(url) as world:
        assert (await world.history.counts()).queued == 10


async def test_a_database_that_was_closed_says_so(url: str):
    async with opened(url) as world:
        pass
    for work in (world.submit(), world.history.counts()):
        with pytest.raises(DatabaseUnavailable, match="it was closed"):
            await work


async def test_a_full_disk_refuses_a_job_and_takes_the_next_when_there_is_room(tmp_path: Path):
    async with opened(f"sqlite:///{tmp_path / 'jobs.sqlite3'}") as world:
        large = new_job(workflow=Document.of("x" * 1_000_000))
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))
        try:
            with pytest.raises(DatabaseUnavailable):
                await world.queue.submit([large])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        await world.queue.submit([large])
        assert (await world.history.counts()).queued == 1


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_connections_that_the_server_has_closed_are_replaced(world: World):
    await world.submit()
    name = make_url(world.database.where).database
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name AND pid <> pg_backend_pid()"
    await world.database.read(lambda connection: connection.execute(text(others), {"name": name}))
    for _ in range(5):
        await asyncio.gather(*(world.submit() for _ in range(3)), world.history.page(), world.queue.claim("worker"))


# Speed, without a clock


async def everything(world: World) -> None:
    """Use all that a database can do."""
    hook = NewWebhook(url="http://localhost/")
    await world.queue.submit([new_job(webhook=hook, owner="a", workflow_id="w", client_id="c") for _ in range(12)], 100)
    await world.queue.mode()
    claims = [await world.queue.claim(f"worker {turn}") for turn in range(6)]
    leases = [claim.lease for claim in claims if claim]
    ids = [lease.job_id for lease in leases]
    await world.queue.heartbeat(leases[0])
    await world.queue.finish(leases[0], Outcome(state="done"))
    await world.queue.release(leases[1])
    await world.queue.worker_died("worker 2", "killed")
    await world.queue.recover("worker 3")
    await world.queue.expire()
    await world.queue.recover()
    for owner in (None, "a"):
        await world.queue.cancel(ids, owner)
        await world.history.jobs(ids, owner)
        await world.events.read(job_id=ids[0], owner=owner)
        await world.events.read(client_id="c", owner=owner)
        await world.webhooks.status(ids[0], owner)
        await world.history.counts(owner)
        for workflow_id in (None, "w"):
            which = JobFilter(owner=owner, workflow_id=workflow_id, created_from=world.clock.now)
            await world.history.count(which)
            await world.history.page(which, sort="created")
            for descending in (True, False):
                first = await world.history.page(which, descending=descending, limit=1)
                await world.history.page(which, descending=descending, after=first.next, offset=5)
    await world.history.page(sort="duration")
    await world.history.page(sort="urgency", descending=False)
    await world.queue.retry(ids[1])
    await world.queue.cancel_waiting("a")
    await world.queue.cancel_waiting()
    await world.events.append([NewEvent(ids[0], "progress", Document.of({}), "slot")])
    for call in await world.webhooks.take():
        await world.webhooks.delivered(call)
    await world.events.prune(timedelta(0), 0)
    await world.history.delete(ids[:2], "a")
    await world.history.prune(timedelta(0), 0)
    await world.history.clear()


async def test_nothing_looks_through_all_jobs_or_sorts_them(tmp_path: Path):
    async with opened(f"sqlite:///{tmp_path / 'jobs.sqlite3'}") as world:
        with statements() as told:
            await everything(world)
    plans: dict[str, str] = {}
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite3")) as connection:
        for statement, parameters in told:
            if not statement.startswith(("PRAGMA", "BEGIN")):
                plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
                plans[statement] = "\n".join(step for *_, step in plan)
    assert len(plans) > 50
    few = {"SCAN job USING INDEX job_queue", "SCAN job USING INDEX job_lease"}  # hold what waits, and what runs
    for statement, plan in plans.items():
        through = {step for step in plan.splitlines() if re.match(r"SCAN (job|event|document|webhook)\b", step)}
        in_their_order = statement.count("ORDER BY") == 1 and re.search(r"ORDER BY (job|event)\.seq", statement)
        assert through <= few or in_their_order, f"{statement}\n{plan}"
    (claim,) = [plan for statement, plan in plans.items() if re.match("UPDATE job .*ORDER BY", statement, re.DOTALL)]
    assert "job_queue" in claim and "TEMP B-TREE" not in claim
