"""Real processes share a queue, and some of them are killed."""

import asyncio
import random
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tests.databases import World, new_job, opened

pytestmark = pytest.mark.anyio

JOBS = 200


@asynccontextmanager
async def process(role: str, url: str, name: str) -> AsyncGenerator[Process]:
    """One of `queue_workers`, ready to begin; whatever happens, it does not outlive the test."""
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "error", "-m", "tests.queue_workers", role, url, name),
        stdin=PIPE,
        stdout=PIPE,
        limit=1 << 24,
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()


async def said(started: Process, times: int) -> list[str]:
    """The next lines of a process."""
    assert started.stdout is not None
    return [(await started.stdout.readline()).decode().strip() for _ in range(times)]


async def rest(started: Process) -> list[str]:
    """What a process has said until its end, whole lines only. Who works is told that no more jobs will come."""
    output, _ = await started.communicate(b"")
    return output.decode().rpartition("\n")[0].splitlines()


async def finished_once(world: World, lines: list[str], killed: int, jobs: int = JOBS) -> None:
    """Every job is done, and nobody but the killed may have kept silent about one."""
    finished = Counter(line for line in lines if line.startswith("finished"))
    assert set(finished.values()) == {1}
    assert jobs - killed <= len(finished) <= jobs
    assert (await world.history.counts()).done == jobs
    done = await world.history.jobs([line.split()[1] for line in finished])
    assert all("by" in job.outputs.value() for job in done)
    assert sum(len(job.losses) for job in done) <= killed


async def test_four_processes_do_two_hundred_jobs_each_once(url: str):
    async with opened(url) as world:
        await world.queue.submit([new_job() for _ in range(JOBS)])
        async with (
            process("work", url, "1") as one,
            process("work", url, "2") as two,
            process("work", url, "3") as three,
            process("work", url, "4") as four,
        ):
            said_by = await asyncio.gather(*(rest(worker) for worker in (one, two, three, four)))
            assert {worker.returncode for worker in (one, two, three, four)} == {0}
        lines = [line for lines in said_by for line in lines]
        assert len([line for line in lines if line.startswith("claimed")]) == JOBS
        await finished_once(world, lines, killed=0)


async def test_killed_workers_lose_no_job_and_none_is_done_twice(url: str):
    chance = random.Random(5)
    async with opened(url) as world, AsyncExitStack() as stack:
        jobs = len(await world.queue.submit([new_job() for _ in range(JOBS)]))
        await world.queue.pause()
        names = ["victim 1", "victim 2", "victim 3", "survivor 1", "survivor 2"]
        workers = [await stack.enter_async_context(process("work", url, name)) for name in names]
        for worker in workers:
            await said(worker, 1)
        await world.queue.resume()

        async def kill(victim: Process, name: str) -> list[str]:
            lines = await said(victim, chance.randrange(1, 20))
            await asyncio.sleep(chance.random() / 100)
            victim.kill()
            lines += await rest(victim)
            await world.queue.worker_died(name, "killed")
            return lines

        killing = asyncio.gather(*map(kill, workers[:3], names[:3]))
        while not killing.done():  # whoever is to be killed has something to do until then
            if (await world.history.counts()).queued < JOBS // 2:
                jobs += len(await world.queue.submit([new_job() for _ in range(JOBS // 2)]))
            await asyncio.sleep(0.01)
        said_by = (*await killing, *await asyncio.gather(*map(rest, workers[3:])))
        assert [worker.returncode for worker in workers] == [-9, -9, -9, 0, 0]
        await finished_once(world, [line for lines in said_by for line in lines], killed=3, jobs=jobs)


async def test_a_job_of_a_killed_worker_is_done_by_another(url: str):
    async with opened(url) as world:
        await world.queue.submit([new_job() for _ in range(JOBS)])
        async with process("hold", url, "victim") as victim:
            held = (await said(victim, 2))[1].split()[1]
        assert (await world.history.job(held)).worker == "victim"
        (taken,) = await world.queue.worker_died("victim", "killed with signal 9")
        assert (taken.job_id, taken.state) == (held, "queued")
        async with process("work", url, "survivor") as survivor:
            await finished_once(world, await rest(survivor), killed=1)
        job = await world.history.job(held)
        assert (job.worker, job.attempts) == ("survivor", 2)
        assert [(loss.worker, loss.cause) for loss in job.losses] == [("victim", "killed with signal 9")]


async def test_jobs_that_were_accepted_survive_the_death_of_the_server(url: str):
    accepted: list[str] = []
    for turn in range(3):
        async with process("submit", url, f"server {turn}") as server:
            accepted += await said(server, 50)
            server.kill()
            accepted += await rest(server)
    ids = [line.split()[1] for line in accepted if line.startswith("accepted")]
    assert len(ids) > 100
    async with opened(url) as world:
        assert len(await world.history.jobs(ids)) == len(ids)


async def test_processes_may_start_at_once_on_a_new_database(url: str):
    async with (
        process("submit", url, "1") as one,
        process("submit", url, "2") as two,
        process("submit", url, "3") as three,
    ):
        lines = await asyncio.gather(*(said(started, 2) for started in (one, two, three)))
    assert [[line.split()[0] for line in pair] for pair in lines] == [["ready", "accepted"]] * 3
