"""Whatever is posted to `/prompt`, and whatever is said on a websocket: it is run, or refused with a reason, and the
next job runs as ever."""

import asyncio
import copy
import gzip
import json
import struct
from collections.abc import AsyncGenerator, Mapping
from typing import Any, cast

import pytest
from aiohttp import WSMsgType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.servers import PATIENCE, Client, serving
from tests.web_site import connected, png
from tests.workers import chain, use

pytestmark = pytest.mark.anyio

Place = tuple[str | int, ...]

texts = st.text(st.characters(), max_size=8) | st.sampled_from(["1", "2", "3", "Spin", "Show", "length", "x" * 3000])
numbers = st.integers() | st.floats() | st.sampled_from([10**30, -(10**400), 2**63, -(2**63) - 1])
anything = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
some = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

GOOD: Mapping[str, Any] = {
    "prompt": chain("Twist", length=3) | {"9": use("Show", yarn=["2", 0])},
    "client_id": "somebody",
    "number": 1,
    "front": True,
    "priority": "normal",
    "extra_data": {"extra_pnginfo": {"workflow": {"id": "a", "nodes": []}}, "client_id": "somebody"},
    "partial_execution_targets": ["3", "9"],
    "set": {"Spin.length": 4},
    "files": {},
}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Client]:
    async with serving(tmp_path_factory.mktemp("fuzzed")) as client:
        yield client
        await unharmed(client)


async def unharmed(client: Client) -> None:
    """A job runs as ever, and then nothing waits any more."""
    assert (await client.run(chain("Twist")))["status"] == "completed"
    async with asyncio.timeout(PATIENCE):
        while (await client.get("/prompt"))["exec_info"] != {"queue_remaining": 0}:
            await asyncio.sleep(0.02)


async def posted(client: Client, body: bytes, path: str = "/prompt", **headers: str) -> tuple[int, Any]:
    """Status and body of the answer: a job, or a refusal in the protocol's shape."""
    said = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client.http.post(path, data=body, headers=said) as answer:
        status, told = answer.status, await answer.json()
    if status == 200:
        assert told["node_errors"] is not None
    else:
        assert 400 <= status < 500, (status, told)
        assert set(told["error"]) == {"type", "message", "details", "extra_info"}
        assert isinstance(told["node_errors"], dict)
        assert "Traceback" not in str(told)
    return status, told


def places(value: object, at: Place = ()) -> list[Place]:
    """The way to everything inside a document."""
    inner: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        inner = [*cast("dict[str | int, object]", value).items()]
    elif isinstance(value, list):
        inner = [*enumerate(cast("list[object]", value))]
    return [found for name, part in inner for found in ((*at, name), *places(part, (*at, name)))]


@st.composite
def nearly(draw: st.DrawFn) -> bytes:
    """A request that is good but for one thing: another value, one too few, or another name."""
    document: Any = copy.deepcopy(GOOD)
    *way, last = draw(st.sampled_from(places(GOOD)))
    inner = document
    for name in way:
        inner = inner[name]
    kind = draw(st.sampled_from(["changed", "changed", "gone", "renamed"]))
    before = inner.pop(last) if kind != "changed" else None
    if kind == "changed":
        inner[last] = draw(anything)
    elif kind == "renamed" and isinstance(inner, dict):
        inner[draw(texts)] = before
    return json.dumps(document).encode()


@some
@given(body=nearly())
async def test_a_workflow_with_one_thing_wrong_is_run_or_refused(client: Client, body: bytes):
    for path in ("/prompt", "/validate"):
        await posted(client, body, path)


@some
@given(body=anything.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=200), inside=st.booleans())
async def test_what_is_no_workflow_is_refused(client: Client, body: bytes, inside: bool):
    content = b'{"prompt": %s}' % body if inside else body
    for path in ("/prompt", "/batch"):
        assert (await posted(client, content, path))[0] >= 400


ODD_IDS = ["a\0b", "x" * 3000, "", "1.2", "a+b"]


@pytest.mark.parametrize("node_id", ["\ud800", *ODD_IDS], ids=range(6))
async def test_a_node_may_have_any_id(client: Client, node_id: str):
    done = await client.run({node_id: use("Spin"), "t": use("Show", yarn=[node_id, 0])})
    assert done["status"] == "completed"
    for part in ("", "/events", "/trace"):
        await client.get(f"/jobs/{done['prompt_id']}{part}")


@pytest.mark.parametrize("node_id", ODD_IDS, ids=range(5))
async def test_a_node_of_any_id_may_fail(client: Client, node_id: str):
    fail = {"1": use("Spin"), node_id: use("Fail", yarn=["1", 0]), "t": use("Show", yarn=[node_id, 0])}
    failed = await client.run(fail)
    assert (failed["status"], failed["error"]["node_id"]) == ("failed", node_id)
    for part in ("", "/events", "/trace"):
        await client.get(f"/jobs/{failed['prompt_id']}{part}")


TEXT = json.dumps({"prompt": chain("Twist")})
FORM = b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s'
DEEP = b'{"prompt": {"1": {"class_type": "Spin", "inputs": {"length": ' + b"[" * 9000 + b"]" * 9000 + b"}}}}"


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (TEXT.encode("utf-16"), {}, 200),
        (TEXT.encode("utf-8-sig"), {"Content_Type": "text/html; charset=nonsense"}, 200),
        (b'{"prompt": 3, ' + TEXT[1:].encode(), {}, 200),  # of two values the last one counts, as in all JSON
        (TEXT.replace("Show", "é").encode("latin-1"), {}, 400),
        (TEXT.replace("1", "NaN").encode(), {}, 400),
        (TEXT.replace('length": 1', 'length": 1' + "0" * 5000).encode(), {}, 400),
        (DEEP, {}, 400),
        (b"[" * 1_000_000, {}, 400),
        (TEXT.encode(), {"Content_Encoding": "gzip"}, 400),
        (gzip.compress(TEXT.encode())[:40], {"Content_Encoding": "gzip"}, 400),
        (gzip.compress(bytes(1 << 20)) * 150, {"Content_Encoding": "gzip"}, 413),
        (TEXT.encode(), {"Content_Type": "multipart/form-data"}, 400),
        (TEXT.encode(), {"Content_Type": "multipart/form-data; boundary=x"}, 400),
        (FORM % (b"prompt", b"", TEXT.encode()), {"Content_Type": "multipart/form-data; boundary=x"}, 400),
        (FORM % (b"a", b'; filename="a.png"', png()), {"Content_Type": "multipart/form-data; boundary=x"}, 400),
        (png(), {}, 400),
        (png(texts={"prompt": "{"}), {}, 400),
        (png(texts={"prompt": "[" * 100_000}), {}, 400),
        (png(texts={"prompt": TEXT})[:60], {}, 400),
    ],
    ids=range(19),
)
async def test_a_body_that_is_odd_in_its_bytes(client: Client, body: bytes, headers: dict[str, str], expected: int):
    status, told = await posted(client, body, Connection="close", **headers)
    assert status == expected, told


# Websockets

flags = st.fixed_dictionaries({"type": st.just("feature_flags") | anything, "data": anything})
replays = st.fixed_dictionaries({"type": st.just("replay"), "data": st.dictionaries(st.just("after"), anything)})
frames = texts | (flags | replays | anything).map(json.dumps) | st.binary(max_size=200)


@some
@given(said=st.lists(frames, max_size=20))
async def test_nothing_that_is_said_harms_a_websocket(client: Client, said: list[str | bytes]):
    async with client.listening() as heard:
        for frame in said:
            if isinstance(frame, bytes):
                await heard.socket.send_bytes(frame)
            else:
                await heard.socket.send_str(frame.encode(errors="replace").decode())
        await heard.socket.send_json({"type": "feature_flags", "data": {}})
        await heard.until(lambda message: message["type"] == "feature_flags")


def raw(opcode: int, content: bytes, last: bool, masked: bool, length: int | None) -> bytes:
    """A frame as it is on the wire, which may claim to have another length than it has."""
    size = len(content) if length is None else length
    head = bytes([last << 7 | opcode, masked << 7 | (size if size < 126 else 126 if size < 1 << 16 else 127)])
    long = b"" if size < 126 else struct.pack(">H" if size < 1 << 16 else ">Q", size)
    return head + long + (bytes(4) if masked else b"") + content


raws = st.builds(
    raw,
    opcode=st.integers(0, 15),
    content=st.binary(max_size=150),
    last=st.booleans(),
    masked=st.sampled_from([True, True, False]),
    length=st.none() | st.sampled_from([0, 200, 70_000, 2**63 - 1]),
)
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@some
@given(sent=st.lists(raws | st.binary(max_size=50), max_size=8))
async def test_nothing_on_the_wire_of_a_websocket_harms_the_server(client: Client, sent: list[bytes]):
    async with connected(client.http) as (reader, writer), asyncio.timeout(PATIENCE):
        writer.write(HANDSHAKE)
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"".join(sent))
        writer.write_eof()
        await reader.read()  # until the server hangs up


async def test_a_message_in_pieces_is_heard_and_one_without_end_is_not(client: Client):
    flags = json.dumps({"type": "feature_flags", "data": {}}).encode()
    pieces = [raw(1, flags[:9], False, True, None), raw(9, b"", True, True, None), raw(0, flags[9:], True, True, None)]
    endless = [raw(1, b"[" * 100, False, True, None), *(raw(0, b"[" * 10_000, False, True, None) for _ in range(10))]
    for frames, answer in ((pieces, b"max_upload_size"), (endless, struct.pack(">H", 1009))):
        async with connected(client.http) as (reader, writer), asyncio.timeout(PATIENCE):
            writer.write(HANDSHAKE + b"".join(frames))
            await reader.readuntil(answer)


async def test_many_who_talk_at_once_are_sent_away_one_by_one(client: Client):
    async def chatter() -> int | None:
        async with client.http.ws_connect("/ws") as socket:
            for _ in range(300):
                await socket.send_str("{}")
            while (await socket.receive()).type in (WSMsgType.TEXT, WSMsgType.BINARY):
                pass
            return socket.close_code

    async with client.listening() as quiet:
        assert set(await asyncio.gather(*(chatter() for _ in range(20)))) == {1008}
        assert await quiet.job(await client.submit(chain()))
