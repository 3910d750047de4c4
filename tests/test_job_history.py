import asyncio
import base64
import random
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from server.database.documents import Document
from server.database.errors import JobNotFound, WrongRequest
from server.database.event_log import NewEvent
from server.database.jobs import PRIORITIES, STATES, JobSummary, NewWebhook, Outcome
from server.database.paging import LOOKED_THROUGH, JobFilter, Sort
from server.database.tables import document, event, job, webhook
from server.database.tallies import Counts
from tests.databases import World, new_job, opened

pytestmark = pytest.mark.anyio

UNKNOWN = "00000000-0000-4000-8000-000000000000"


async def ended(world: World, state: Any = "done", **job: Any) -> str:
    """A job that is over after a second."""
    claim = await world.claimed(**job)
    world.clock.advance(1)
    await world.queue.finish(claim.lease, Outcome(state=state))
    return claim.job.id


async def many(world: World) -> Sequence[JobSummary]:
    """Jobs of all kinds, in the order in which they were submitted."""
    chance = random.Random(7)
    for _ in range(60):
        world.clock.advance(chance.choice((0, 0, 1, 60)))
        kind: dict[str, Any] = {
            "owner": chance.choice("ab"),
            "workflow_id": chance.choice(("w", "v", None)),
            "label": chance.choice(("A red boat", "ein ÖLBILD, rot", "100% _wool_")),
            "priority": chance.choice(PRIORITIES),
            "number": chance.choice((None, 0.5, -3)),
        }
        new = await world.submit(**kind)
        match chance.choice(("queued", *STATES)):
            case "queued":
                pass
            case "cancelled":
                await world.queue.cancel([new.id])
            case state:
                claim = await world.queue.claim("worker")
                if claim and (state == "done" or state == "failed"):
                    world.clock.advance(chance.choice((0, 1, 2)))
                    await world.queue.finish(claim.lease, Outcome(state=state))
    jobs = (await world.history.page(descending=False, limit=1000)).jobs
    assert {job.state for job in jobs} == set(STATES)
    return jobs


async def paged(world: World, which: JobFilter, limit: int = 7, **order: Any) -> list[str]:
    """The ids of the jobs on all pages."""
    ids: list[str] = []
    after = None
    while True:
        page = await world.history.page(which, limit=limit, after=after, **order)
        assert len(page.jobs) == limit or page.next is None
        ids.extend(job.id for job in page.jobs)
        after = page.next
        if after is None:
            return ids


# One job


async def test_a_job_that_does_not_exist_is_not_found(world: World):
    for job_id in (UNKNOWN, "nonsense", "\0", "\ud800"):
        with pytest.raises(JobNotFound):
            await world.history.job(job_id)


async def test_several_jobs_come_in_the_order_in_which_they_are_asked_for(world: World):
    ids = [(await world.submit()).id for _ in range(3)]
    found = await world.history.jobs([ids[2], UNKNOWN, ids[0], ids[2], "nonsense"])
    assert [job.id for job in found] == [ids[2], ids[0]]


# Pages

KEYS: dict[Sort, Callable[[JobSummary], Any]] = {
    "created": lambda job: job.created,
    "duration": lambda job: job.seconds or 0,
    "urgency": lambda job: (PRIORITIES.index(job.priority), job.number),
}
FILTERS: Sequence[tuple[JobFilter, Callable[[JobSummary], bool]]] = [
    (JobFilter(), lambda job: True),
    (JobFilter(owner="a"), lambda job: job.owner == "a"),
    (JobFilter(states=["done"]), lambda job: job.state == "done"),
    (JobFilter(states=["failed", "queued"]), lambda job: job.state in ("failed", "queued")),
    (JobFilter(states=["running"], owner="b"), lambda job: (job.state, job.owner) == ("running", "b")),
    (JobFilter(workflow_id="w"), lambda job: job.workflow_id == "w"),
    (JobFilter(workflow_id="v", owner="a"), lambda job: (job.workflow_id, job.owner) == ("v", "a")),
    (JobFilter(search="BOAT"), lambda job: "boat" in job.label),
    (JobFilter(search="rot ölb"), lambda job: "ÖLBILD" in job.label),
    (JobFilter(search="0% _"), lambda job: "0% _" in job.label),
    (JobFilter(search="o_l"), lambda job: False),
    (JobFilter(states=()), lambda job: False),
]


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("sort", KEYS)
async def test_pages_together_are_the_list(world: World, sort: Sort, descending: bool):
    jobs = await many(world)
    for which, fits in FILTERS:
        expected = [job for job in jobs if fits(job) and (sort != "urgency" or job.state == "queued")]
        order = sorted(range(len(expected)), key=lambda at: (KEYS[sort](expected[at]), at), reverse=descending)
        ids = [expected[at].id for at in order]
        assert await paged(world, which, sort=sort, descending=descending) == ids
        if sort != "urgency":
            assert await world.history.count(which) == len(ids)
        if not which.search:
            rest = await world.history.page(which, sort=sort, descending=descending, limit=5, offset=3)
            assert [job.id for job in rest.jobs] == ids[3:8]


async def test_the_list_by_urgency_is_the_order_of_claims(world: World):
    await many(world)
    listed = await paged(world, JobFilter(), sort="urgency", descending=False)
    claims = [await world.queue.claim("worker") for _ in listed]
    assert [claim and claim.job.id for claim in claims] == listed


async def test_jobs_are_found_by_the_time_of_their_creation(world: World):
    ids: list[str] = []
    for _ in range(5):
        ids.append((await world.submit()).id)
        world.clock.advance(10)
    start = world.clock.now - timedelta(seconds=50)
    which = JobFilter(created_from=start + timedelta(seconds=10), created_before=start + timedelta(seconds=30))
    assert await paged(world, which, descending=False) == ids[1:3]
    assert await world.history.count(which) == 2


async def test_a_job_is_found_by_its_id(world: World):
    await world.submit()
    wanted = (await world.submit()).id
    assert await paged(world, JobFilter(search=wanted[:20].upper())) == [wanted]


async def test_jobs_that_come_while_somebody_reads_do_not_shift_the_pages(world: World):
    ids = [(await world.submit()).id for _ in range(4)]
    first = await world.history.page(limit=2)
    await world.submit()
    second = await world.history.page(limit=2, after=first.next)
    assert [job.id for job in (*first.jobs, *second.jobs)] == ids[::-1]


async def test_a_search_looks_through_a_bounded_number_of_jobs_for_each_page(world: World):
    await world.queue.submit([new_job(label="needle"), *(new_job() for _ in range(LOOKED_THROUGH + 5))])
    first = await world.history.page(JobFilter(search="needle"))
    assert first.jobs == () and first.next is not None
    second = await world.history.page(JobFilter(search="needle"), after=first.next)
    assert [job.label for job in second.jobs] == ["needle"]
    assert second.next is None


async def test_a_page_that_cannot_be_is_refused(world: World):
    await world.submit()
    await world.submit()
    cursor = (await world.history.page(limit=1)).next
    assert cursor is not None
    for wrong in (
        {"limit": 0},
        {"limit": 1001},
        {"offset": -1},
        {"offset": 10**30},
        {"after": ""},
        {"after": "é\0"},
        {"after": "W10="},
        {"after": "bm8="},
        {"after": cursor, "descending": False},
        {"after": cursor, "sort": "duration"},
        {"which": JobFilter(search="a"), "offset": 1},
    ):
        asked: dict[str, Any] = wrong
        with pytest.raises(WrongRequest):
            await world.history.page(**asked)


@pytest.mark.parametrize(
    "key", ['["a", 1]', "[1e999, 1]", "[true, 1]", "[NaN, 1]", f"[{2**63}, 1]", "[null, 1]", "[1]"]
)
async def test_a_cursor_that_somebody_made_up_is_refused(world: World, key: str):
    made_up = base64.urlsafe_b64encode(f'["created", true, {key[1:]}'.encode()).decode()
    with pytest.raises(WrongRequest, match="no page of this list ended"):
        await world.history.page(after=made_up)


@pytest.mark.parametrize(
    "wrong", [{"search": "\0"}, {"search": "a " * 11}, {"owner": "\ud800"}, {"created_from": datetime(2030, 1, 1)}]
)
async def test_a_filter_that_cannot_be_is_refused(wrong: dict[str, Any]):
    with pytest.raises(WrongRequest):
        JobFilter(**wrong)


# Counts


async def test_counts_are_kept_for_each_owner(world: World):
    jobs = await many(world)
    for owner in (None, "a", "b", "nobody"):
        mine = [job.state for job in jobs if owner in (None, job.owner)]
        assert await world.history.counts(owner) == Counts(**{state: mine.count(state) for state in STATES})


# Letting go


async def test_only_jobs_that_are_over_are_deleted(world: World):
    over = await ended(world)
    running = (await world.claimed()).job.id
    waiting = (await world.submit()).id
    assert await world.history.delete([over, running, waiting, UNKNOWN, "nonsense"]) == 1
    assert await world.states() == ["running", "queued"]


async def test_everything_of_a_deleted_job_goes_and_what_others_need_stays(world: World):
    shared, own = Document.of({"shared": 1}), Document.of({"own": 1})
    gone = await ended(world, workflow=shared, extra=own, webhook=NewWebhook(url="http://localhost/"))
    await world.submit(workflow=shared)
    await world.events.append([NewEvent(gone, "executed", Document.of({}))])
    assert [await world.count(table) for table in (job, document, event, webhook)] == [2, 2, 1, 1]
    await world.history.delete([gone])
    assert [await world.count(table) for table in (job, document, event, webhook)] == [1, 1, 0, 0]


async def test_the_history_of_one_owner_can_be_cleared(world: World):
    for owner in ("a", "b"):
        for state in ("done", "failed", "cancelled"):
            await ended(world, state, owner=owner)
    await world.submit(owner="a")
    assert await world.history.clear("a", ["failed"]) == 1
    assert await world.history.counts("a") == Counts(queued=1, done=1, cancelled=1)
    assert await world.history.clear("a") == 2
    assert await world.history.counts() == Counts(queued=1, done=1, failed=1, cancelled=1)


async def test_more_jobs_are_cleared_than_fit_into_one_transaction(world: World):
    await world.queue.submit([new_job() for _ in range(250)])
    await world.queue.cancel_waiting()
    assert await world.history.clear() == 250
    assert await world.count(job) == await world.count(document) == 0


async def test_old_jobs_are_let_go_and_the_newest_kept(world: World):
    running = await world.claimed(label="running")
    old = [await ended(world) for _ in range(3)]
    world.clock.advance(100)
    new = [await ended(world) for _ in range(3)]
    assert await world.history.prune(older_than=timedelta(seconds=50)) == len(old)
    assert await world.history.prune(older_than=timedelta(seconds=50)) == 0
    assert await world.history.prune(most=2) == 1
    ids = await paged(world, JobFilter())
    assert ids == [new[2], new[1], running.job.id]


async def test_a_job_that_ended_lately_is_not_old_however_long_it_waited(world: World):
    claim = await world.claimed()
    world.clock.advance(100)
    await world.queue.finish(claim.lease, Outcome(state="done"))
    assert await world.history.prune(older_than=timedelta(seconds=50)) == 0


async def test_processes_may_delete_what_others_refer_to(url: str):
    same = Document.of({"same": 1})
    async with opened(url) as one, opened(url) as other:

        async def come_and_go(world: World) -> None:
            for _ in range(20):
                accepted = await world.submit(workflow=same)
                await world.queue.cancel([accepted.id])
                assert await world.history.delete([accepted.id]) == 1

        await asyncio.gather(*(come_and_go(world) for world in (one, other) for _ in range(3)))
        assert await one.count(document) == 0


async def test_the_last_two_jobs_of_a_document_may_be_deleted_at_once(url: str):
    async with opened(url) as one, opened(url) as other:
        for turn in range(20):
            same = Document.of({"same": turn})
            jobs = await one.queue.submit([new_job(workflow=same), new_job(workflow=same)])
            await one.queue.cancel_waiting()
            await asyncio.gather(one.history.delete([jobs[0].id]), other.history.delete([jobs[1].id]))
            assert await one.count(document) == 0
