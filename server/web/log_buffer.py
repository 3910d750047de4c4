"""The last lines of the log, for editors that show them, and who follows it."""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from pydantic import BaseModel

MOST_ENTRIES = 300
MOST_FOLLOWERS = 1000


class Entry(BaseModel):
    """When, and what, under the names that editors read."""

    t: str
    m: str


Tell = Callable[[str, Sequence[Entry]], None]
"""Sends entries to a client."""


class LogBuffer(logging.Handler):
    """Keeps what is logged for a while. To be added to the loggers that are to be seen.

    Args:
        tell: is called for everyone who follows, in whatever thread something is logged. It must not log.
    """

    def __init__(self, tell: Tell | None = None) -> None:
        super().__init__()
        self.tell = tell
        self.followers = frozenset[str]()
        self._entries = deque[Entry](maxlen=MOST_ENTRIES)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The last ones, the oldest first."""
        self.acquire()
        try:
            return tuple(self._entries)
        finally:
            self.release()

    def follow(self, client_id: str, wanted: bool) -> bool:
        """Whether a client is to be sent what is logged from now on. False: too many are.

        Whoever is gone is to be taken off.
        """
        if not wanted:
            self.followers -= {client_id}
        elif len(self.followers) < MOST_FOLLOWERS:
            self.followers |= {client_id}
        return (client_id in self.followers) == wanted

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record, and pass it on."""
        try:
            moment = datetime.fromtimestamp(record.created, UTC)
            entry = Entry(t=moment.isoformat(), m=f"{self.format(record)}\n")
            self._entries.append(entry)
            if self.tell:
                for client_id in self.followers:
                    self.tell(client_id, [entry])
        except Exception:
            # What goes wrong while something is logged is not the business of who logs it.
            self.handleError(record)
