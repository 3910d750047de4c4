"""Whole servers over loopback, with real workers that know the nodes of `worker_nodes.py` and
`server_nodes.py`."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from aiohttp import ClientWebSocketResponse, WSMsgType
from aiohttp.test_utils import TestClient, TestServer

from server.service import Service, ServiceOptions, running
from tests.workers import NODES, pool_options

Json = dict[str, Any]
OWN_NODES = (NODES, Path(__file__).parent / "server_nodes.py")
PATIENCE = 60.0
"""Seconds after which a test gives up; nothing that works takes so long."""


@dataclass
class Client:
    """A client of a server."""

    http: TestClient[Any, Any]
    service: Service
    id: str = field(default_factory=lambda: uuid4().hex)

    async def get(self, path: str, expected: int = 200, **query: Any) -> Any:
        async with self.http.get(path, params=query) as answer:
            assert answer.status == expected, await answer.text()
            return await answer.json()

    async def post(self, path: str, body: Any = None, expected: int = 200, **query: Any) -> Any:
        """Post JSON, or bytes as they are. None: the answer was empty."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        async with self.http.post(path, data=content, params=query) as answer:
            text = await answer.text()
            assert answer.status == expected, text
            return json.loads(text) if text else None

    async def submit(self, workflow: Mapping[str, Any], **more: Any) -> str:
        """Queue a workflow in this client's name. Returns the job's id."""
        return (await self.post("/prompt", {"prompt": workflow, "client_id": self.id, **more}))["prompt_id"]

    async def run(self, workflow: Mapping[str, Any], **more: Any) -> Json:
        """Run a workflow and wait for what is made."""
        return await self.post("/prompt", {"prompt": workflow, "client_id": self.id, **more}, wait=PATIENCE)

    async def state(self, job_id: str) -> str:
        return (await self.get(f"/jobs/{job_id}"))["status"]

    async def until(self, job_id: str, *states: str) -> Json:
        """A job, when it is in one of these states."""
        async with asyncio.timeout(PATIENCE):
            while True:
                job = await self.get(f"/jobs/{job_id}")
                if job["status"] in states:
                    return job
                await asyncio.sleep(0.02)

    @asynccontextmanager
    async def listening(self, flags: Mapping[str, Any] | None = None, **query: Any) -> AsyncGenerator["Listening"]:
        """A websocket of this client."""
        async with self.http.ws_connect("/ws", params={"clientId": self.id, **query}) as socket:
            heard = Listening(socket)
            if flags is not None:
                await socket.send_json({"type": "feature_flags", "data": flags})
                await heard.until(lambda message: message["type"] == "feature_flags")
            yield heard


@dataclass
class Listening:
    """What a websocket was told."""

    socket: ClientWebSocketResponse
    messages: list[Json] = field(default_factory=list[Json])
    frames: list[bytes] = field(default_factory=list[bytes])

    async def next(self) -> Json | bytes:
        async with asyncio.timeout(PATIENCE):
            message = await self.socket.receive()
        assert message.type in (WSMsgType.TEXT, WSMsgType.BINARY), message
        if message.type is WSMsgType.BINARY:
            self.frames.append(message.data)
            return message.data
        said: Json = json.loads(message.data)
        self.messages.append(said)
        return said

    async def until(self, condition: Callable[[Json], bool]) -> Json:
        """The next message like this."""
        while True:
            message = await self.next()
            if not isinstance(message, bytes) and condition(message):
                return message

    async def job(self, job_id: str) -> list[Json]:
        """All messages of a job up to its end, those that were heard before included."""
        if not any(map(is_end(job_id), self.messages)):
            await self.until(is_end(job_id))
        return [message for message in self.messages if message["data"].get("prompt_id") == job_id]


def is_end(job_id: str) -> Callable[[Json], bool]:
    """Whether a message says that a job is in the history."""
    return lambda message: message == {"type": "executing", "data": {"node": None, "prompt_id": job_id}}


@asynccontextmanager
async def serving(data: Path, pool: Mapping[str, Any] | None = None, **options: Any) -> AsyncGenerator[Client]:
    """A server with one worker."""
    told = ServiceOptions(data=data, pool=pool_options(data, {"own_nodes": OWN_NODES}, **(pool or {})), **options)
    async with running(told) as service, TestClient(TestServer(service.application)) as http:
        yield Client(http, service)
