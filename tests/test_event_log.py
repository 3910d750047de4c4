import asyncio
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest

from server.database.documents import Document
from server.database.errors import WrongRequest
from server.database.event_log import LoggedEvent, NewEvent
from server.database.tables import event
from tests.databases import World, opened

pytestmark = pytest.mark.anyio

UNKNOWN = "00000000-0000-4000-8000-000000000000"


def happened(job_id: str, *names: str, slot: str | None = None) -> list[NewEvent]:
    return [NewEvent(job_id, name, Document.of({"name": name}), slot) for name in names]


def kinds(events: Iterable[LoggedEvent]) -> str:
    return "".join(logged.kind for logged in events)


async def test_events_of_a_job_are_read_in_order_from_anywhere(world: World):
    mine, other = (await world.submit(client_id="c")).id, (await world.submit()).id
    first = await world.events.append(happened(mine, "a", "b"))
    await world.events.append(happened(other, "x"))
    await world.events.append(happened(mine, "c"))
    page = await world.events.read(job_id=mine)
    assert [(logged.number - first, logged.kind) for logged in page.events] == [(0, "a"), (1, "b"), (3, "c")]
    assert page.events[0] == LoggedEvent(first, mine, "c", "a", Document.of({"name": "a"}), world.clock.now)
    assert kinds((await world.events.read(job_id=mine, after=first)).events) == "bc"
    assert (await world.events.read(job_id=mine, after=page.last)).events == ()


async def test_a_client_reads_the_events_of_all_its_jobs(world: World):
    one, two, other = [(await world.submit(client_id=client)).id for client in ("c", "c", "d")]
    await world.events.append([*happened(one, "a"), *happened(other, "x"), *happened(two, "b"), *happened(one, "c")])
    assert kinds((await world.events.read(client_id="c")).events) == "abc"
    assert kinds((await world.events.read(client_id="c", job_id=one)).events) == "ac"


async def test_other_owners_events_are_not_read(world: World):
    theirs = (await world.submit(owner="theirs", client_id="c")).id
    await world.events.append(happened(theirs, "a"))
    assert (await world.events.read(client_id="c", owner="mine")).events == ()
    assert (await world.events.read(job_id=theirs, owner="mine")).events == ()
    assert kinds((await world.events.read(job_id=theirs, owner="theirs")).events) == "a"


async def test_pages_of_events_together_are_all_of_them(world: World):
    job_id = (await world.submit()).id
    await world.events.append(happened(job_id, *"abcdefg"))
    read, after, more = "", 0, True
    while more:
        page = await world.events.read(job_id=job_id, after=after, limit=3)
        read, after, more = read + kinds(page.events), page.last, page.more
    assert read == "abcdefg"


async def test_of_progress_only_the_latest_is_kept(world: World):
    job_id = (await world.submit()).id
    for _ in range(100):
        await world.events.append(happened(job_id, "1", "2", "3", slot="progress 7") + happened(job_id, "x", slot="8"))
    last = await world.events.append(happened(job_id, "4", slot="progress 7") + happened(job_id, "a"))
    page = await world.events.read(job_id=job_id)
    assert await world.count(event) == 3
    assert kinds(page.events) == "x4a"
    assert [logged.number for logged in page.events][1:] == [last, last + 1]


async def test_a_slot_belongs_to_its_job(world: World):
    one, other = (await world.submit()).id, (await world.submit()).id
    await world.events.append(happened(one, "a", slot="s") + happened(other, "b", slot="s"))
    assert kinds((await world.events.read(job_id=one)).events) == "a"


async def test_events_of_jobs_that_are_gone_are_dropped(world: World):
    kept = (await world.submit()).id
    first = await world.events.append(happened(UNKNOWN, "x") + happened("nonsense", "y") + happened(kept, "a"))
    page = await world.events.read(job_id=kept)
    assert [(logged.number, logged.kind) for logged in page.events] == [(first + 2, "a")]
    assert await world.events.append([]) == await world.events.last() + 1


async def test_a_reader_misses_nothing_while_several_processes_write(url: str):
    async with opened(url) as one, opened(url) as other:
        job_id = (await one.submit(client_id="c")).id
        seen: list[int] = []

        async def write(world: World, count: int) -> None:
            for _ in range(count):
                await world.events.append(happened(job_id, "a", "b"))

        async def read() -> None:
            after = 0
            while len(seen) < 4 * 25 * 2:
                page = await other.events.read(client_id="c", after=after)
                assert all(logged.number > after for logged in page.events)
                seen.extend(logged.number for logged in page.events)
                after = page.last

        await asyncio.gather(read(), *(write(world, 25) for world in (one, other, one, other)))
        assert seen == sorted(set(seen))


async def test_old_events_are_let_go_and_a_reader_is_told(world: World):
    job_id = (await world.submit()).id
    await world.events.append(happened(job_id, *"abc"))
    world.clock.advance(100)
    first = await world.events.append(happened(job_id, *"def"))
    assert await world.events.prune(older_than=timedelta(seconds=50)) == 3
    late = await world.events.read(job_id=job_id, after=1)
    assert (kinds(late.events), late.complete) == ("def", False)
    assert (await world.events.read(job_id=job_id, after=first - 1)).complete
    assert await world.events.prune(older_than=timedelta(seconds=50), most=2) == 1
    assert kinds((await world.events.read(job_id=job_id)).events) == "ef"
    assert await world.events.prune(most=2) == 0


async def test_more_events_are_let_go_than_fit_into_one_transaction(world: World):
    job_id = (await world.submit()).id
    await world.events.append(happened(job_id, *["a"] * 2500))
    assert await world.events.prune(most=10) == 2490


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"job_id": "nonsense"},
        {"client_id": "\0"},
        {"client_id": "c", "after": -1},
        {"client_id": "c", "after": 2**63},
        {"client_id": "c", "limit": 0},
        {"client_id": "c", "limit": 1001},
    ],
)
async def test_a_reading_that_cannot_be_is_refused(world: World, wrong: dict[str, Any]):
    with pytest.raises(WrongRequest):
        await world.events.read(**wrong)
