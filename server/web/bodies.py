"""The bodies of requests: read piece by piece, up to a limit, and with patience that ends."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from aiohttp import web
from pydantic_core import from_json

from server.web.problems import Refused, Wrong

PIECE = 1024 * 1024

T = TypeVar("T")


class Arrival:
    """A body as it arrives.

    Args:
        most: bytes; one more is refused with 413.
        patience: seconds for which nothing may come.
    """

    def __init__(self, request: web.Request, most: int, patience: float) -> None:
        self.request = request
        self.most = most
        self.patience = patience
        self.received = 0
        if (request.content_length or 0) > most:
            raise self._too_large()

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body, in pieces of about a megabyte."""
        async for piece in self.gathered(self.request.content.readany):
            yield piece

    async def whole(self) -> bytes:
        """The body."""
        return b"".join([piece async for piece in self.pieces()])

    async def gathered(self, read: Callable[[], Awaitable[bytes]]) -> AsyncIterator[bytes]:
        """What `read` gives until it gives nothing, in pieces of about a megabyte."""
        waiting = bytearray()
        while piece := await self.waited(read()):
            self.received += len(piece)
            if self.received > self.most:
                raise self._too_large()
            waiting += piece
            if len(waiting) >= PIECE:
                yield bytes(waiting)
                waiting.clear()
        if waiting:
            yield bytes(waiting)

    async def waited(self, something: Awaitable[T]) -> T:
        """What comes next, unless it takes too long."""
        try:
            async with asyncio.timeout(self.patience):
                return await something
        except TimeoutError:
            raise Refused(408, f"nothing came for {self.patience:g} seconds in the middle of the body") from None

    def _too_large(self) -> Refused:
        return Refused(413, f"the body is larger than the {self.most:,} bytes that are taken here")


def parse_json(body: bytes) -> Any:
    """What a body says in JSON. Refuses what is none, and what is nested too deeply."""
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        reason = str(error) if body else "it is empty"
        raise Refused(400, f"the body is not JSON: {reason}", [Wrong(place="body", name="", message=reason)]) from error
