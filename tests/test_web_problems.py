"""What goes wrong is told in JSON, says what is wrong, and says nothing else."""

import asyncio
import errno
import gzip
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated

import pytest
from aiohttp import web
from pydantic import BaseModel, Field

from server.web.application import make_application
from server.web.bodies import Arrival
from server.web.endpoint import Endpoint, get, post
from server.web.problems import Shape
from server.web.site import Limits
from tests.web_site import Client, asked, at_home, connected, served, site_in, told

pytestmark = pytest.mark.anyio


class Query(BaseModel):
    number: Annotated[int, Field(ge=1)] = 1
    names: list[str] = []
    flag: bool = False


class Body(BaseModel):
    text: str
    deep: list[int] = []


class Loom:
    """A service."""

    name = "jacquard"


async def weave(
    loom: Loom, part: Annotated[int, Field(le=5)], query: Query, body: Body | None = None
) -> dict[str, object]:
    """Say what was understood."""
    return {"loom": loom.name, "part": part, "query": query.model_dump(), "body": body and body.model_dump()}


def weaving(tmp_path: Path, **parts: object):
    return served(site_in(tmp_path, **parts), [post("/weave/{part}", weave)], {Loom: Loom()})


async def test_a_handler_gets_what_its_signature_says(tmp_path: Path):
    async with weaving(tmp_path) as client:
        path = "/api/weave/3?number=7&names=a&names=b&flag=true&other=1"
        status, understood = await told(client, "POST", path, data=b'{"text": "x", "deep": [1]}')
    assert (status, understood) == (
        200,
        {
            "loom": "jacquard",
            "part": 3,
            "query": {"number": 7, "names": ["a", "b"], "flag": True},
            "body": {"text": "x", "deep": [1]},
        },
    )


async def test_a_body_that_may_be_left_out_is_none(tmp_path: Path):
    async with weaving(tmp_path) as client:
        assert (await told(client, "POST", "/weave/1"))[1]["body"] is None


async def test_everything_wrong_is_told_at_once_with_its_place(tmp_path: Path):
    async with weaving(tmp_path) as client:
        status, body = await told(client, "POST", "/weave/9?number=x&flag=maybe", data=b"{}")
        assert status == 400
        assert [(wrong["in"], wrong["name"]) for wrong in body["problems"]] == [
            ("path", "part"),
            ("query", "number"),
            ("query", "flag"),
        ]
        assert "query 'number': input should be a valid integer" in body["error"]
        status, body = await told(client, "POST", "/weave/1", data=b'{"deep": [1, "x"]}')
        assert [(wrong["in"], wrong["name"], wrong["message"]) for wrong in body["problems"]][0] == (
            "body",
            "text",
            "it is missing",
        )
        assert body["problems"][1]["name"] == "deep.1"


@pytest.mark.parametrize(
    "body", [b"{", b"\xff", b"NaN", b'{"text": "\\ud800"}', b"[" * 500, b"1" * 5000, b"\xef\xbb\xbf{}"]
)
async def test_a_body_that_is_no_json_is_told_so(tmp_path: Path, body: bytes):
    async with weaving(tmp_path) as client:
        status, answer = await told(client, "POST", "/weave/1", data=body)
        assert (status, answer["error"].startswith("the body is not JSON")) == (400, True)


async def test_a_body_that_is_too_large_is_refused(tmp_path: Path):
    async with weaving(tmp_path, limits=Limits(json_bytes=100)) as client:
        for data in (b" " * 101, b'{"text": "' + b"x" * 200 + b'"}'):
            assert (await told(client, "POST", "/weave/1", data=data))[0] == 413


async def test_a_small_body_that_unpacks_to_a_huge_one_is_refused(tmp_path: Path):
    async with weaving(tmp_path, limits=Limits(json_bytes=100_000)) as client:
        packed = {"data": gzip.compress(b" " * 50_000_000), "headers": {"Content-Encoding": "gzip"}}
        assert (await told(client, "POST", "/weave/1", **packed))[0] == 413
        packed["data"] = gzip.compress(b'{"text": "x"}')
        assert (await told(client, "POST", "/weave/1", **packed))[0] == 200


async def test_a_body_that_says_it_is_too_large_is_not_waited_for(tmp_path: Path):
    async with weaving(tmp_path, limits=Limits(json_bytes=100)) as client, connected(client) as (reader, writer):
        writer.write(b"POST /weave/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 101\r\n\r\n")
        assert b" 413 " in await reader.readline()


async def test_unknown_paths_and_methods_are_told(tmp_path: Path):
    async with at_home(tmp_path) as client:
        assert (await told(client, "GET", "/nothing")) == (404, {"error": "there is nothing at /nothing"})
        async with client.delete("/settings") as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD, POST")
            assert "use GET, HEAD, POST" in (await answer.json())["error"]


async def mistaken() -> None:
    raise RuntimeError("/secret/path/of/this/machine")


async def full_disk() -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "/secret/path")


async def strange_disk() -> None:
    raise OSError(errno.EIO, "Input/output error", "/secret/path")


async def test_a_mistake_of_the_server_is_told_without_what_it_was(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    routes = [get("/mistake", mistaken), get("/full", full_disk), get("/strange", strange_disk)]
    async with served(site_in(tmp_path), routes) as client:
        with caplog.at_level(logging.ERROR):
            status, body = await told(client, "GET", "/mistake")
        assert status == 500
        assert "secret" not in str(body)
        number = body["error"].split()[-1]
        assert number in caplog.text
        assert "/secret/path/of/this/machine" in caplog.text
        assert (await told(client, "GET", "/full")) == (507, {"error": "there is no room left on the server's disk"})
        status, body = await told(client, "GET", "/strange")
        assert (status, "secret" in str(body)) == (503, False)


class Own(BaseModel):
    """A refusal."""

    error: dict[str, str]


async def test_a_route_may_have_a_shape_of_its_own_for_refusals(tmp_path: Path):
    shape = Shape(lambda refused: {"error": {"type": "mine", "message": refused.message}}, Own)
    routes = [post("/shaped", weave_body, shape=shape)]
    async with served(site_in(tmp_path), routes) as client:
        document = await asked(client, "/openapi.json")
        described = document["paths"]["/shaped"]["post"]["responses"]["400"]["content"]["application/json"]
        assert described == {"schema": {"$ref": "#/components/schemas/Own"}}
        status, body = await told(client, "POST", "/shaped", data=b"{")
        assert (status, body["error"]["type"]) == (400, "mine")
        status, body = await told(client, "POST", "/shaped", headers={"Host": "evil.example"})
        assert (status, body["error"]["type"]) == (403, "mine")


async def weave_body(body: Body) -> None:
    """Take a body."""


async def test_a_client_that_stops_in_the_middle_is_told_and_let_go(tmp_path: Path):
    async with weaving(tmp_path, limits=Limits(patience=0.05)) as client, connected(client) as (reader, writer):
        writer.write(b'POST /weave/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"te')
        assert b" 408 " in await reader.readline()


async def test_clients_that_are_slow_do_not_keep_others_waiting(tmp_path: Path):
    async with weaving(tmp_path) as client, AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(half_sent(client)) for _ in range(50)]
        assert (await told(client, "POST", "/weave/1", data=b'{"text": "quick"}'))[0] == 200
        assert (await asked(client, "/features"))["supports_preview_metadata"]
        for reader, writer in slow:
            writer.write(b'"}')
            assert b" 200 " in await reader.readline()


@asynccontextmanager
async def half_sent(client: Client) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection over which all but the end of a request was sent."""
    async with connected(client) as (reader, writer):
        writer.write(b'POST /weave/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 13\r\n\r\n{"text": "x')
        await writer.drain()
        yield reader, writer


@pytest.mark.parametrize(
    "junk",
    [
        b"POST /weave/1 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
        b"POST /weave/1 HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
        b"POST /weave/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"GET /features HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00nonsense\r\n\r\n",
        b"GET " + b"/x" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_refused(tmp_path: Path, junk: bytes):
    async with weaving(tmp_path) as client:
        async with connected(client) as (reader, writer):
            writer.write(junk)
            line = await reader.readline()
            assert line.split()[1][:1] == b"4", line
        assert (await told(client, "GET", "/features"))[0] == 200


async def test_who_sent_a_body_that_cannot_be_unpacked_is_told_that_the_connection_ends(tmp_path: Path):
    async with weaving(tmp_path) as client:
        async with client.post("/weave/1", data=b"nope", headers={"Content-Encoding": "gzip"}) as answer:
            assert (answer.status, answer.headers["Connection"]) == (400, "close")
        assert (await told(client, "POST", "/weave/1", data=b"{"))[0] == 400


async def unfilled(loom: Loom) -> None:
    """Take what nobody gives."""


async def two_bodies(body: Body, arrival: Arrival) -> None:
    """Take two bodies."""


async def unknown(something: int) -> None:
    """Take what is in no path."""


def test_a_route_that_cannot_work_is_refused_when_the_site_is_made(tmp_path: Path):
    with pytest.raises(TypeError, match="Loom"):
        make_application(site_in(tmp_path), [get("/x", unfilled)])
    with pytest.raises(TypeError, match="twice"):
        make_application(site_in(tmp_path), [get("/features", mistaken)])
    with pytest.raises(TypeError, match="no parameter for part"):
        _ = Endpoint("GET", "/x/{part}", mistaken, "read").parameters
    with pytest.raises(TypeError, match="more than one body"):
        _ = Endpoint("POST", "/x", two_bodies, "submit").parameters


async def test_an_answer_that_has_begun_is_not_answered_again(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    async def half(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"half")
        raise RuntimeError("broken off")

    async with served(site_in(tmp_path), [get("/half", half)]) as client:
        async with connected(client) as (reader, writer):
            writer.write(b"GET /half HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = await reader.read()
        assert (answer.count(b"HTTP/1.1"), b"broken off" in answer) == (1, False)
