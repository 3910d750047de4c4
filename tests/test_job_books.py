"""Many at once do everything there is to do; afterwards what is noted about the jobs is what can be counted."""

import asyncio
import random
from contextlib import suppress

import pytest
from sqlalchemy import func, select

from server.database.documents import Document
from server.database.errors import JobNotFound, JobNotRetryable, LeaseLost
from server.database.event_log import NewEvent
from server.database.jobs import ENDINGS, Lease, NewWebhook, Outcome
from server.database.tables import document, event, job, tally, webhook
from server.database.tallies import Counts
from tests.databases import World, new_job, opened

pytestmark = pytest.mark.anyio

WORKFLOWS = [Document.of({"workflow": name}) for name in "ab"]
HOOK = NewWebhook(url="http://localhost/")


async def use(world: World, seed: int, ids: list[str], leases: list[Lease]) -> None:
    """Do this and that, to one's own jobs and to those of others."""
    chance = random.Random(seed)
    worker = f"worker {seed % 3}"
    for _ in range(25):
        some = chance.sample(ids, min(2, len(ids)))
        with suppress(LeaseLost, JobNotFound, JobNotRetryable):
            match chance.randrange(10):
                case 0 | 1 | 2:
                    workflow, extra = chance.choice(WORKFLOWS), chance.choice(WORKFLOWS)
                    owner = chance.choice("ab")
                    jobs = [new_job(workflow=workflow, extra=extra, owner=owner, webhook=HOOK) for _ in range(2)]
                    ids += [accepted.id for accepted in await world.queue.submit(jobs)]
                case 3 | 4 | 5:
                    claim = await world.queue.claim(worker)
                    leases += [claim.lease] if claim else []
                case 6 if leases:
                    await world.queue.finish(chance.choice(leases), Outcome(state=chance.choice(ENDINGS)))
                case 7 if leases:
                    await chance.choice((world.queue.release, world.queue.heartbeat))(chance.choice(leases))
                case 8 if some:
                    await world.queue.cancel(some)
                    await world.queue.retry(some[0])
                case _:
                    await world.events.append([NewEvent(job_id, "progress", WORKFLOWS[0], "slot") for job_id in some])
                    await world.history.delete(some)
                    await world.queue.worker_died(worker, "killed")
                    await world.webhooks.take()


async def test_whatever_happens_at_once_the_books_are_right(url: str):
    ids: list[str] = []
    leases: list[Lease] = []
    async with opened(url) as one, opened(url) as other:
        await asyncio.gather(*(use((one, other)[seed % 2], seed, ids, leases) for seed in range(10)))
        assert await books(one) == []
        await one.queue.recover()
        await one.queue.cancel_waiting()
        await other.history.clear()
        assert [await one.count(table) for table in (job, document, event, webhook)] == [0, 0, 0, 0]
        assert await one.history.counts() == Counts()


async def books(world: World) -> list[object]:
    """What is noted and cannot be counted, or the other way round."""
    counted = select(job.c.owner, job.c.state, func.count()).group_by(job.c.owner, job.c.state)
    noted = select(tally.c.owner, tally.c.state, tally.c.jobs).where(tally.c.jobs != 0)
    used = select(job.c.workflow).union(select(job.c.extra).where(job.c.extra.is_not(None)))
    unused = select(document.c.id).where(document.c.id.not_in(used))
    found = [
        await world.database.read(lambda connection, query=query: connection.execute(query))
        for query in (counted, noted, unused)
    ]
    rows = [{tuple(row) for row in result} for result in found]
    assert rows[0]
    return [*(rows[0] ^ rows[1]), *rows[2]]
