"""What websocket clients are told: in which order, in which form, and who is told nothing."""

import asyncio
import io
import json
import struct
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.servers import Client, Json, serving
from tests.worker_nodes import PNG
from tests.workers import alone, chain

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(tmp_path: Path) -> AsyncGenerator[Client]:
    async with serving(tmp_path, previews=True) as client:
        yield client


def kinds(messages: list[Json]) -> list[str]:
    """Messages as `type` or `type node`, those about progress left out."""
    return [
        " ".join(filter(None, (message["type"], message["data"].get("node"))))
        for message in messages
        if message["type"] not in ("progress", "progress_state")
    ]


async def test_the_first_message_says_the_id_and_how_long_the_queue_is(client: Client):
    async with client.listening() as heard:
        assert await heard.next() == {
            "type": "status",
            "data": {"status": {"exec_info": {"queue_remaining": 0}}, "sid": client.id},
        }
    async with client.http.ws_connect("/api/ws") as socket:
        assert len((await socket.receive_json())["data"]["sid"]) == 32


async def test_a_job_is_told_in_the_protocols_order(client: Client):
    async with client.listening() as heard:
        job_id = await client.submit(chain("TwistTwice"))
        messages = await heard.job(job_id)
        assert await client.get(f"/history/{job_id}")
    assert kinds(messages) == [
        "execution_start",
        "execution_cached",
        *("executing 1", "executing 2", "executing 3"),
        "executed 3",
        "execution_success",
        "executing",
    ]
    states: dict[str, str] = {
        node["node_id"]: node["state"]
        for message in messages
        if message["type"] == "progress_state"
        for node in message["data"]["nodes"].values()
    }
    assert states == dict.fromkeys("123", "finished")
    assert [message["data"]["timestamp"] for message in messages if message["type"] == "execution_success"]


async def test_what_is_known_already_is_said_to_be_cached(client: Client):
    await client.run(chain("Twist"))
    async with client.listening() as heard:
        messages = await heard.job(await client.submit(chain("Twist")))
    (cached,) = [message["data"]["nodes"] for message in messages if message["type"] == "execution_cached"]
    assert "2" in cached and "executing 2" not in kinds(messages) and "executed 3" in kinds(messages)


async def test_nobody_hears_of_the_jobs_of_another_client(client: Client):
    other = Client(client.http, client.service)
    async with client.listening() as heard, other.listening() as overheard:
        await heard.job(await client.submit(chain("Twist")))
        nameless = (await client.post("/prompt", {"prompt": chain("Twist", "Twist")}, wait=60))["prompt_id"]
        own = await other.submit(chain())
        await overheard.job(own)
        assert not any(message["data"].get("prompt_id") == nameless for message in heard.messages)
    about = {message["data"].get("prompt_id") for message in overheard.messages}
    assert about == {None, own}


async def test_a_page_may_follow_all_jobs(client: Client):
    page = Client(client.http, client.service)
    async with page.listening(jobs="all") as heard:
        job_id = await client.submit(chain())
        assert kinds(await heard.job(job_id))[0] == "execution_start"


async def test_an_old_socket_that_closes_does_not_silence_the_new_one(client: Client):
    async with client.listening() as old, client.listening() as new:
        await old.socket.close()
        assert "execution_success" in kinds(await new.job(await client.submit(chain())))


@pytest.mark.parametrize("metadata", [True, False])
async def test_pictures_come_in_the_form_that_was_asked_for(client: Client, metadata: bool):
    async with client.listening({"supports_preview_metadata": metadata}) as heard:
        job_id = await client.submit(alone("Draw", times=3))
        await heard.job(job_id)
    frame = heard.frames[0]
    kind, second = struct.unpack(">II", frame[:8])
    if not metadata:
        assert (kind, second, frame[8:]) == (1, 2, PNG)
        return
    about = json.loads(frame[8 : 8 + second])
    assert (kind, about["node_id"], about["prompt_id"], about["image_type"]) == (4, "1", job_id, "image/png")
    assert frame[8 + second :] == PNG


async def test_who_follows_all_jobs_sees_pictures_of_nameless_ones(client: Client):
    async with client.listening({"supports_preview_metadata": True}, jobs="all") as heard:
        await heard.job((await client.post("/prompt", {"prompt": alone("Draw", times=3)}))["prompt_id"])
    assert heard.frames and heard.frames[0].endswith(PNG)


async def test_flags_are_answered_with_those_of_the_server(client: Client):
    async with client.listening({"supports_preview_metadata": True}) as heard:
        (answer,) = [message["data"] for message in heard.messages if message["type"] == "feature_flags"]
        assert answer["supports_preview_metadata"] is True and answer["max_upload_size"] == 100 * 1024 * 1024


async def test_who_comes_back_is_told_at_which_node_the_job_is(client: Client):
    async with client.listening() as heard:
        job_id = await client.submit(alone("Wait"))
        await heard.until(lambda message: message["type"] == "executing")
    async with client.listening() as again:
        assert await again.until(lambda message: message["type"] == "executing") == {
            "type": "executing",
            "data": {"node": "1"},
        }
    await client.post("/interrupt", {"prompt_id": job_id})


async def test_who_comes_back_is_told_what_happened_meanwhile(client: Client):
    async with client.listening({"supports_replay": True}) as heard:
        first = await client.submit(chain())
        await heard.job(first)
        logged = await heard.until(lambda message: message["type"] == "logged")
        while not await said(client, first, logged["data"]["last"]):
            logged = await heard.until(lambda message: message["type"] == "logged")
    missed = await client.submit(chain("Twist"))
    await client.until(missed, "completed")
    async with client.listening(after=logged["data"]["last"]) as again:
        replayed = await again.until(lambda message: message["type"] == "replayed")
        assert replayed["data"]["complete"]
        assert kinds(await again.job(missed))[0] == "execution_start"
        assert not [message for message in again.messages if message["data"].get("prompt_id") == first]
        await again.socket.send_json({"type": "replay", "data": {"after": 0}})
        await again.until(lambda message: message["type"] == "replayed")
        assert [message for message in again.messages if message["data"].get("prompt_id") == first]


async def said(client: Client, job_id: str, number: int) -> bool:
    """Whether this number covers everything about a job, its end included."""
    events = (await client.get(f"/jobs/{job_id}/events"))["events"]
    return events[-1]["type"] == "executing" and events[-1]["number"] <= number


@pytest.mark.parametrize(
    "frame", ["", "{", "[]", "null", '{"type": "feature_flags", "data": 3}', '{"type": []}', "[" * 9999]
)
async def test_what_cannot_be_understood_is_passed_over(client: Client, frame: str):
    async with client.listening() as heard:
        await heard.socket.send_str(frame)
        await heard.socket.send_bytes(frame.encode())
        assert "execution_success" in kinds(await heard.job(await client.submit(chain())))


async def test_a_client_that_says_too_much_is_sent_away(client: Client):
    for frames in (["x" * 100_000], ["{}"] * 500):
        async with client.listening() as heard:
            for frame in frames:
                await heard.socket.send_str(frame)
            async with asyncio.timeout(30):
                while not heard.socket.closed:
                    await heard.socket.receive()
            assert heard.socket.close_code in (1008, 1009)
    assert (await client.run(chain()))["status"] == "completed"


async def test_queries_that_make_no_sense_are_refused(client: Client):
    wrong: list[dict[str, Any]] = [{"after": -1}, {"after": "x"}, {"clientId": "x" * 2000}, {"jobs": "every"}]
    for query in wrong:
        async with client.http.get("/ws", params=query) as answer:
            assert answer.status == 400, query
    async with client.http.get("/ws") as answer:  # which is no handshake
        assert answer.status == 400


async def test_every_picture_that_a_node_sends_arrives_also_where_previews_are_off(tmp_path: Path):
    prompt = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 6, "batch_size": 30, "color": 0x102030}},
        "2": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}},
    }
    async with serving(tmp_path) as client, client.listening() as heard:
        messages = await heard.job(await client.submit(prompt))
    assert "execution_success" in kinds(messages) and len(heard.frames) == 30
    assert not list((tmp_path / "output").rglob("*.png"))
    with Image.open(io.BytesIO(heard.frames[-1][8:])) as image:
        assert (image.format, image.size, image.getpixel((7, 5))) == ("PNG", (8, 6), (0x10, 0x20, 0x30))
