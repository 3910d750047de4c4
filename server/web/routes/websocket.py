"""`/ws`: what happens to a client's jobs, as it happens, and what the client missed while it was away."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Literal, cast
from uuid import uuid4

from aiohttp import WSCloseCode, WSMsgType, web
from pydantic import BaseModel, Field

from server.database.errors import DatabaseError
from server.web.access import Caller
from server.web.desk import Desk, telling
from server.web.endpoint import Gives, get
from server.web.hub import Listener, envelope, status_data
from server.web.outbox import Frame, TooSlow
from server.web.problems import LOGGER, Refused
from server.web.rates import Rate
from server.web.requests import Json
from server.web.site import Site

HEARTBEAT = 30.0
"""Seconds between two pings; a client that does not answer is gone."""
SEND_SECONDS = 30.0
"""A client that takes nothing for so long is cut off."""
MOST_BUFFERED = 128 * 1024
"""Bytes on their way to a client beyond which no more are sent until it has taken some."""
LOOK_SECONDS = 0.02
"""Whether a slow client has taken some is looked at so often."""
KEY_SECONDS = 20.0
"""Whether a client's key is still one is looked at so often."""
LARGEST_MESSAGE = 64 * 1024
MOST_LISTENERS = 5_000
LONGEST_ID = 1000

Socket = web.WebSocketResponse


class SocketQuery(BaseModel):
    """Who listens."""

    clientId: Annotated[str, Field(max_length=LONGEST_ID, description="The `client_id` of the jobs.")] = ""
    after: Annotated[
        int | None,
        Field(ge=0, lt=2**63, description="The number of the last event that is known: later ones are told."),
    ] = None
    jobs: Annotated[Literal["own", "all"], Field(description="`all`: of other clients of the same owner too.")] = "own"


@telling
async def listen(
    request: web.Request, desk: Desk, site: Site, caller: Caller, query: SocketQuery
) -> Annotated[web.StreamResponse, Gives(status=101)]:
    """A websocket. The first message says under which id the client is known."""
    if len(desk.hub) >= MOST_LISTENERS:
        raise Refused(503, "too many clients are connected; try again in a while")
    remaining = (await desk.history.counts(caller.owner)).unfinished
    # Frames are small, and compressing them for each of a thousand clients would hold up all others.
    socket = Socket(heartbeat=HEARTBEAT, max_msg_size=LARGEST_MESSAGE, compress=False)
    await socket.prepare(request)
    listener = Listener(caller.owner, query.clientId or uuid4().hex, query.jobs == "all", held=[])
    conversation = _Conversation(request, socket, listener, desk, site)
    desk.hub.add(listener)
    desk.sockets.add(socket)
    try:
        await conversation.greet(remaining)
        if query.after is not None:
            listener.flags["supports_replay"] = True
            await conversation.replay(query.after)
        listener.release()
        await conversation.talk()
    except (ConnectionError, TimeoutError):
        pass  # gone, or too slow to be told why
    finally:
        desk.hub.remove(listener)
        desk.sockets.discard(socket)
        with suppress(ConnectionError):
            await socket.close(code=WSCloseCode.GOING_AWAY)
    return socket


class _Conversation:
    """What is said on one socket."""

    def __init__(self, request: web.Request, socket: Socket, listener: Listener, desk: Desk, site: Site) -> None:
        self.request = request
        self.socket = socket
        self.listener = listener
        self.desk = desk
        self.site = site

    async def greet(self, remaining: int) -> None:
        """Say the id, how long the queue is, and at which node a job of this client is."""
        await self._say("status", status_data(remaining) | {"sid": self.listener.client_id})
        for running in list(self.desk.dispatcher.running.values()):
            mine = (running.owner, running.client_id) == (self.listener.owner, self.listener.client_id)
            if mine and running.node is not None:
                await self._say("executing", {"node": running.node})

    async def replay(self, after: int) -> None:
        """Tell what was told after an event, and only then what happens from now on."""
        listener = self.listener
        if listener.held is None:
            listener.held = []
        try:
            missed = await self.desk.journal.missed(listener.client_id, listener.owner, after)
        except DatabaseError as error:
            LOGGER.warning("a client cannot be told what it missed: %s", error)
            await self._say("replayed", {"last": after, "complete": False})
            return
        await self._send([Frame(envelope(event.kind, event.data.text)) for event in missed.events])
        await self._say("replayed", {"last": missed.last, "complete": missed.complete})

    async def talk(self) -> None:
        """Send what is told and read what is said, until one of both ends."""
        tasks = [asyncio.create_task(work) for work in (self._write(), self._read(), self._watch_key())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            if not task.cancelled():
                task.result()

    async def _write(self) -> None:
        try:
            while True:
                await self._send(await self.listener.outbox.take())
        except TooSlow:
            message = b"you read too slowly; come back with ?after= for what you missed"
            await self._close(WSCloseCode.TRY_AGAIN_LATER, message)

    async def _watch_key(self) -> None:
        """Hang up when the client's key is revoked."""
        allowed = True
        while allowed:
            await asyncio.sleep(KEY_SECONDS)
            with suppress(Refused):  # the database does not answer, which is not the client's fault
                allowed = await self.site.door.still_admits(self.request, "read", key_in_url=True)
        await self._close(WSCloseCode.POLICY_VIOLATION, b"your key opens nothing any more")

    async def _read(self) -> None:
        rate = Rate(burst=100, per_second=20)
        while True:
            message = await self.socket.receive()
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                return  # closed, or broken
            if rate.take("messages") > 0:
                await self._close(WSCloseCode.POLICY_VIOLATION, b"too many messages")
                return
            if message.type is WSMsgType.TEXT:
                await self._hear(message.data)

    async def _hear(self, text: str) -> None:
        """What is not understood is passed over, as clients of the protocol expect."""
        try:
            said: object = json.loads(text)
        except (ValueError, RecursionError):
            return
        match said:
            case {"type": "feature_flags", "data": dict()}:
                self.listener.flags = self.listener.flags | cast("dict[str, Json]", said)["data"]
                self.listener.put(Frame(envelope("feature_flags", json.dumps(features(self.site)))))
            case {"type": "replay", "data": {"after": int() as after}} if 0 <= after < 2**63:
                self.listener.flags["supports_replay"] = True
                await self.replay(after)
                self.listener.release()
            case _:
                pass

    async def _close(self, code: int, message: bytes) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.socket.close(code=code, message=message), 5)

    async def _say(self, kind: str, data: Json) -> None:
        await self._send([Frame(envelope(kind, json.dumps(data)))])

    async def _send(self, frames: Sequence[Frame]) -> None:
        """Send frames, as many together as the client can take at once.

        They are put on the wire here and not by aiohttp: each is made once for all clients, and one call of the system
        sends many.
        """
        together: list[bytes] = []
        size = 0
        for frame in frames:
            together.append(frame.wire)
            size += len(frame.wire)
            if size > MOST_BUFFERED:
                await self._put_on_wire(b"".join(together))
                together, size = [], 0
        if together:
            await self._put_on_wire(b"".join(together))

    async def _put_on_wire(self, content: bytes) -> None:
        transport = self.request.transport
        if transport is None or transport.is_closing() or self.socket.closed:
            raise ConnectionResetError("the client has gone")
        transport.write(content)
        if transport.get_write_buffer_size() > MOST_BUFFERED:
            async with asyncio.timeout(SEND_SECONDS):
                while transport.get_write_buffer_size() > MOST_BUFFERED and not transport.is_closing():
                    await asyncio.sleep(LOOK_SECONDS)


def features(site: Site) -> Json:
    """What this server can do, for clients that ask."""
    own = {"supports_preview_metadata": True, "max_upload_size": site.limits.upload_bytes, "supports_replay": True}
    return {**site.features, **own}


ROUTES = (get("/ws", listen, key_in_url=True),)
