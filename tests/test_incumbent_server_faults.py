"""What the incumbent's server gets wrong, fault by fault, and what this one does instead. The numbers are those of the
list of faults; that nothing waits for the disk on the event loop (22) is in `test_web_event_loop.py`.
"""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from uuid import uuid4

import pytest

from tests.servers import PATIENCE, Client, serving
from tests.workers import alone, chain

pytestmark = pytest.mark.anyio

KERNEL = 6 * 1024 * 1024
"""Bytes that are more than the system keeps of a connection on its way."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Client]:
    async with serving(tmp_path_factory.mktemp("faults"), previews=True) as client:
        yield client


async def test_fault_6_jobs_of_one_number_run_in_the_order_in_which_they_came(client: Client):
    await client.post("/queue/pause")
    ids = [await client.submit(chain(length=length), number=7) for length in (1, 2, 3)]
    assert [item[1] for item in (await client.get("/queue"))["queue_pending"]] == ids
    await client.post("/queue/resume")
    started = [(await client.until(job_id, "completed"))["execution_start_time"] for job_id in ids]
    assert started == sorted(started)


async def test_fault_6_a_second_job_of_one_number_and_id_is_refused_and_the_first_runs(client: Client):
    await client.post("/queue/pause")
    job_id = str(uuid4())
    job = {"prompt": chain(), "prompt_id": job_id, "number": 7}
    await client.post("/prompt", job)
    refused = await client.post("/prompt", job, expected=409)
    assert refused["error"]["type"] == "duplicate_prompt_id"
    assert len((await client.get("/queue"))["queue_pending"]) == 1
    await client.post("/queue/resume")
    await client.until(job_id, "completed")


async def test_fault_6_a_number_that_is_none_is_refused(client: Client):
    body = json.dumps({"prompt": chain(), "number": 0})
    for number in ("NaN", "-Infinity", "1e999", '"nan"', "[]"):
        refused = await client.post("/prompt", body.replace('"number": 0', f'"number": {number}').encode(), 400)
        assert refused["error"]["type"] in ("invalid_json", "invalid_request")


async def test_fault_22_a_client_that_does_not_read_keeps_no_other_waiting(client: Client):
    busy = Client(client.http, client.service)
    await busy.run(chain(*["Twist"] * 300))
    with socket.socket() as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(link, (client.http.host, client.http.port))
        reader, writer = await asyncio.open_connection(sock=link, limit=4096)
        async with busy.listening() as told:
            writer.write(
                handshake(busy.id) + b"".join(text({"type": "replay", "data": {"after": 0}}) for _ in range(90))
            )
            writer.write(text({"type": "feature_flags", "data": {}}))
            await reader.readuntil(b"\r\n\r\n")
            for length in (1, 2, 3):
                assert (await told.job(await busy.submit(chain("Twist", length=length))))[-1]["type"] == "executing"
        heard, end = 0, b""
        async with asyncio.timeout(PATIENCE):
            while b"max_upload_size" not in end:  # the answer to what it said last
                piece = await reader.read(1 << 20)
                assert piece
                heard, end = heard + len(piece), end[-100:] + piece
        assert heard > KERNEL  # so it was behind all the time
        writer.close()


def handshake(client_id: str) -> bytes:
    lines = (f"GET /ws?clientId={client_id} HTTP/1.1", "Host: localhost", "Upgrade: websocket", "Connection: Upgrade")
    more = ("Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {'A' * 22}==", "", "")
    return "\r\n".join((*lines, *more)).encode()


def text(said: object) -> bytes:
    """A frame of a client, whose mask is zero."""
    content = json.dumps(said).encode()
    return bytes([0x81, 0x80 | len(content)]) + bytes(4) + content


async def test_fault_33_what_nobody_claims_is_told_to_nobody(client: Client):
    other = Client(client.http, client.service)
    async with client.listening() as heard, other.listening({"supports_preview_metadata": True}) as overheard:
        nameless = await client.post("/prompt", {"prompt": alone("Draw", times=3)}, wait=PATIENCE)
        assert nameless["status"] == "completed"
        for listener, who in ((heard, client), (overheard, other)):
            await listener.job(await who.submit(chain()))
            assert not listener.frames
            assert nameless["prompt_id"] not in json.dumps(listener.messages)
