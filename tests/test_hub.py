"""Who is told what, in which order, however many listen."""

import asyncio
import json
from itertools import chain
from typing import Any

import pytest

from server.web.hub import TOLD_AT_ONCE, Hub, Listener
from server.web.narrator import Message, Picture

pytestmark = pytest.mark.anyio


async def one(owner: str) -> int:
    return 1


def message(number: int) -> tuple[Message, None]:
    return Message("executing", {"node": str(number)}), None


async def heard(listener: Listener) -> list[Any]:
    """The frames that wait for a client; there is at least one."""
    return [frame.content for frame in await listener.outbox.take()]


@pytest.mark.parametrize("count", [1, TOLD_AT_ONCE + 1, 5 * TOLD_AT_ONCE])
async def test_however_many_listen_each_hears_everything_in_order(count: int):
    hub = Hub(one)
    listeners = [Listener("ann", "editor") for _ in range(count)]
    for listener in listeners:
        hub.add(listener)
    for number in range(5):
        hub.tell("ann", "editor", [message(number)])
    hub.written(7)
    hub.queue_changed()
    await asyncio.sleep(0.02)
    hub.tell("ann", "editor", [message(5)])
    await asyncio.sleep(0.02)
    for listener in listeners:
        messages = [json.loads(text) for text in await heard(listener)]
        assert [message["type"] for message in messages] == ["executing"] * 5 + ["status", "executing"]
        nodes = [message["data"]["node"] for message in messages if message["type"] == "executing"]
        assert nodes == [str(number) for number in range(6)]


async def test_who_comes_later_hears_nothing_of_what_was_told_before():
    hub = Hub(one)
    early = [Listener("ann", "editor") for _ in range(3 * TOLD_AT_ONCE)]
    for listener in early:
        hub.add(listener)
    hub.tell("ann", "editor", [message(1)])
    late = Listener("ann", "editor")
    hub.add(late)
    hub.tell("ann", "editor", [message(2)])
    await asyncio.sleep(0.02)
    assert len(await heard(late)) == 1
    assert {len(texts) for texts in await asyncio.gather(*map(heard, early))} == {2}


async def test_a_picture_comes_to_each_in_the_form_that_it_takes():
    hub = Hub(one)
    older, newer = Listener("ann", "a"), Listener("ann", "b", flags={"supports_preview_metadata": True})
    followers = [Listener("ann", f"f{at}", follows_all=True) for at in range(TOLD_AT_ONCE)]
    for listener in chain((older, newer), followers):
        hub.add(listener)
    picture = Picture({"image_type": "image/png", "node_id": "1", "prompt_id": "p"}, b"content")
    for client in ("a", "b"):
        hub.tell("ann", client, [(picture, None)])
    await asyncio.sleep(0.02)
    ((plain,), (rich,)) = await heard(older), await heard(newer)
    assert plain[:4] == bytes((0, 0, 0, 1)) and rich[:4] == bytes((0, 0, 0, 4)) and rich.endswith(b"content")
    assert {len(await heard(follower)) for follower in followers} == {1}
