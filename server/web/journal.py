"""What is told of jobs, on its way into the event log: written together, a few times a second, in the order it came.

Websockets do not wait for it. A client that comes back asks for what came after the last number it knows.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from server.database.errors import DatabaseError
from server.database.event_log import EventLog, LoggedEvent, NewEvent

log = logging.getLogger("latentloom.server")

FLUSH_SECONDS = 0.25
"""Events are written together, no oftener than this."""
WRITTEN_AT_ONCE = 500
"""Preparing more would hold up the event loop for longer than a few milliseconds."""
MOST_UNWRITTEN = 100_000
"""Events that may wait while the database does not answer. Beyond that the oldest are forgotten."""
MOST_REPLAYED = 20_000
"""Events that a client can be told again; one that missed more asks for its jobs instead."""
KEPT_FOR = timedelta(days=2)
MOST_KEPT = 2_000_000


@dataclass(frozen=True, slots=True)
class Replay:
    """What a client missed. `last` is the number of the newest event, and `complete` says that nothing is left out."""

    events: Sequence[LoggedEvent]
    last: int
    complete: bool


@dataclass(slots=True)
class Journal:
    """Events on their way into the log."""

    events: EventLog
    written: Callable[[int], None] = lambda last: None
    """Is told the number of the last event whenever some were written."""
    _unwritten: list[NewEvent] = field(default_factory=list[NewEvent])
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _filled: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, new: Sequence[NewEvent]) -> None:
        """Add events. It never waits."""
        if not new:
            return
        self._unwritten += new
        if len(self._unwritten) > MOST_UNWRITTEN:
            del self._unwritten[:-MOST_UNWRITTEN]
        self._filled.set()

    async def write(self) -> int:
        """Write what was added up to now. Returns the number of the last event of all.

        Raises:
            DatabaseError: it could not be written; it is tried again later.
        """
        batch, self._unwritten = self._unwritten, []
        async with self._writing:
            if not batch:
                return await self.events.last()
            last = 0
            for start in range(0, len(batch), WRITTEN_AT_ONCE):
                some = batch[start : start + WRITTEN_AT_ONCE]
                try:
                    last = await self.events.append(some) + len(some) - 1
                except DatabaseError:
                    self._unwritten = batch[start:] + self._unwritten
                    raise
                except asyncio.CancelledError:  # what was begun is finished all the same
                    self._unwritten = batch[start + len(some) :] + self._unwritten
                    raise
                self.written(last)
            return last

    async def keep_writing(self) -> None:
        """Write a few times a second, for as long as nobody cancels it."""
        while True:
            await self._filled.wait()
            # More is coming, as a rule: now is when a job has just begun.
            await asyncio.sleep(FLUSH_SECONDS)
            self._filled.clear()
            try:
                await self.write()
            except DatabaseError as error:
                log.warning("events cannot be written down at the moment: %s", error)
                self._filled.set()
                await asyncio.sleep(5)

    async def missed(self, client_id: str, owner: str | None, after: int) -> Replay:
        """What a client was told after an event, up to now: whatever is added from here on is not among it.

        Raises:
            DatabaseError
        """
        last = await self.write()
        found: list[LoggedEvent] = []
        complete = True
        while after < last:
            page = await self.events.read(client_id=client_id, owner=owner, after=after)
            complete &= page.complete
            found += [event for event in page.events if event.number <= last]
            after = page.last
            if not page.more or len(found) > MOST_REPLAYED:
                complete &= not page.more
                break
        return Replay(found, last, complete)

    async def prune(self) -> None:
        """Forget what nobody will ask for any more."""
        await self.events.prune(KEPT_FOR, MOST_KEPT)
