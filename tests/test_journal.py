"""Events on their way into the log."""

import pytest

from server.database.documents import Document
from server.database.errors import DatabaseUnavailable
from server.database.event_log import NewEvent
from server.web.journal import WRITTEN_AT_ONCE, Journal
from tests.databases import World, opened

pytestmark = pytest.mark.anyio

MANY = 2 * WRITTEN_AT_ONCE + 7


def numbered(job_id: str) -> list[NewEvent]:
    return [NewEvent(job_id, "executing", Document(str(number))) for number in range(MANY)]


async def test_many_events_are_written_in_pieces_and_in_order(world: World):
    job = await world.submit(client_id="editor")
    told: list[int] = []
    journal = Journal(world.events, told.append)
    journal.add(numbered(job.id))
    assert await journal.write() == MANY and told == [WRITTEN_AT_ONCE, 2 * WRITTEN_AT_ONCE, MANY]
    found = (await journal.missed("editor", None, after=0)).events
    assert [event.data.value() for event in found] == list(range(MANY))


async def test_what_the_database_does_not_take_is_kept_for_later(url: str):
    async with opened(url) as world:
        job = await world.submit(client_id="editor")
        journal = Journal(world.events)
        journal.add(numbered(job.id))
    with pytest.raises(DatabaseUnavailable):
        await journal.write()
    async with opened(url) as world:
        journal.events = world.events
        assert await journal.write() == MANY
