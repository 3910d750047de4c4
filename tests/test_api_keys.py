from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from server.database.errors import WrongRequest
from tests.databases import World, opened

pytestmark = pytest.mark.anyio


async def test_a_key_opens_what_it_was_made_for(world: World):
    new = await world.keys.create("ann", ["submit", "read"], name="laptop")
    await world.keys.create("bob", ["admin"])
    key = await world.keys.verify(new.text)
    assert key is not None
    assert (key.id, key.owner, key.scopes, key.name) == (new.key.id, "ann", {"submit", "read"}, "laptop")


async def test_what_is_no_key_opens_nothing(world: World):
    text = (await world.keys.create("ann", ["read"])).text
    prefix, key_id, _ = text.split("_", 2)
    wrong = ["", "ll", text[:-1], text + "a", text.swapcase(), f"{prefix}_{key_id}_", f"{prefix}__x", text * 5]
    for no_key in (*wrong, "ll_\0_a", "ll_é_a", "ll_\ud800_a"):
        assert await world.keys.verify(no_key) is None


async def test_a_key_ends_when_it_is_revoked_or_expires(world: World):
    revoked = await world.keys.create("ann", ["read"])
    expiring = await world.keys.create("ann", ["read"], expires=world.clock.now + timedelta(days=1))
    assert await world.keys.revoke(revoked.key.id)
    assert not await world.keys.revoke(revoked.key.id)
    assert not await world.keys.revoke("nonsense")
    assert await world.keys.verify(revoked.text) is None
    assert await world.keys.verify(expiring.text) is not None
    assert await world.keys.any_valid()
    world.clock.advance(86400)
    assert await world.keys.verify(expiring.text) is None
    assert not await world.keys.any_valid()
    assert [key.id for key in await world.keys.all()] == sorted([revoked.key.id, expiring.key.id])


async def test_a_key_cannot_be_read_from_the_database(tmp_path: Path):
    async with opened(f"sqlite:///{tmp_path / 'jobs.sqlite3'}") as world:
        text = (await world.keys.create("ann", ["read"])).text
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"ann" in kept
    assert text.split("_", 2)[2].encode() not in kept


async def test_the_last_use_of_a_key_is_known_to_the_minute(world: World):
    new = await world.keys.create("ann", ["read"])
    for seconds in (0, 30, 29, 1):
        world.clock.advance(seconds)
        await world.keys.verify(new.text)
    (key,) = await world.keys.all()
    assert key.used == world.clock.now == key.created + timedelta(seconds=60)


@pytest.mark.parametrize(
    "wrong", [{"owner": ""}, {"owner": "\0"}, {"scopes": []}, {"scopes": ["root"]}, {"name": "x" * 1001}]
)
async def test_a_key_that_cannot_be_is_refused(world: World, wrong: dict[str, Any]):
    asked: dict[str, Any] = {"owner": "ann", "scopes": ["read"], **wrong}
    with pytest.raises(WrongRequest):
        await world.keys.create(**asked)


async def test_a_key_that_is_over_before_it_begins_is_refused(world: World):
    with pytest.raises(WrongRequest, match="over already"):
        await world.keys.create("ann", ["read"], expires=world.clock.now)
