"""What a websocket client is still to be sent: in order, bounded, and never holding up anybody else.

A client that reads too slowly loses pictures and progress first, of which only the newest matter; when it lags so far
behind that it would lose what it must know, it is cut off, and can ask for what it missed when it comes back.
"""

import asyncio
import struct
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property

MOST_WAITING = 20_000
MOST_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True)
class Frame:
    """A websocket message: text, or bytes.

    Args:
        replaces: of waiting frames with the same mark only the last is sent; None: every one is.
    """

    content: str | bytes
    replaces: Hashable = None

    @cached_property
    def wire(self) -> bytes:
        """What is sent of it: whole, not masked, not compressed (RFC 6455, 5.2). The same for everybody."""
        opcode, body = (0x1, self.content.encode()) if isinstance(self.content, str) else (0x2, self.content)
        first, size = 0x80 | opcode, len(body)
        if size < 126:
            return struct.pack(">BB", first, size) + body
        if size < 1 << 16:
            return struct.pack(">BBH", first, 126, size) + body
        return struct.pack(">BBQ", first, 127, size) + body


class TooSlow(Exception):
    """The client lags so far behind that it has to begin anew."""


class Outbox:
    """Frames on their way to one client. For one event loop."""

    def __init__(self) -> None:
        self._frames: OrderedDict[Hashable, Frame] = OrderedDict()
        self._bytes = 0
        self._count = 0
        self._filled = asyncio.Event()
        self._lost = False

    def put(self, frame: Frame) -> None:
        """Add a frame. It never waits; a client that is too slow hears of it in `get`."""
        if self._lost:
            return
        mark: Hashable = ("latest", frame.replaces)
        if frame.replaces is None:
            self._count += 1
            mark = self._count
        before = self._frames.pop(mark, None)
        if before is not None:
            self._bytes -= len(before.content)
        self._frames[mark] = frame
        self._bytes += len(frame.content)
        if len(self._frames) > MOST_WAITING or self._bytes > MOST_BYTES:
            self._shed()
        self._filled.set()

    async def take(self) -> list[Frame]:
        """All frames that wait, in order, as soon as there is one.

        Raises TooSlow when frames had to be dropped that cannot be done without.
        """
        while not self._frames:
            if self._lost:
                raise TooSlow
            self._filled.clear()
            await self._filled.wait()
        if self._lost:
            raise TooSlow
        frames = list(self._frames.values())
        self._frames.clear()
        self._bytes = 0
        return frames

    def _shed(self) -> None:
        """Make room: first what a later frame of its kind makes up for."""
        for mark in [mark for mark, frame in self._frames.items() if frame.replaces is not None]:
            self._bytes -= len(self._frames.pop(mark).content)
        if len(self._frames) > MOST_WAITING or self._bytes > MOST_BYTES:
            self._lost = True
            self._frames.clear()
            self._bytes = 0
