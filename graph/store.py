"""The store: results by key. This tier is memory, bounded by bytes, least recently used out; another is the disk."""

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

from graph.keys import Key
from graph.values import size_of

Outputs = tuple[object, ...]


class Claim(Protocol):
    """The right to compute what is missing under a key. It ends when it is released, or with the process."""

    def release(self) -> None:
        """Let others have it, once they can find what was put under the key before. May be called again."""
        ...


class Store(Protocol):
    """Where results are kept by key."""

    @property
    def least_seconds(self) -> float:
        """What is made again in less time than this is not kept for other processes."""
        ...

    def __contains__(self, key: Key) -> bool:
        """Whether there is something under the key; a look that does not count as a use."""
        ...

    def get(self, key: Key) -> Outputs | None:
        """The outputs kept under the key, or None."""
        ...

    def put(self, key: Key, outputs: Outputs, *, class_name: str = "", seconds: float = 0.0) -> None:
        """Keep outputs under the key, if there is room for them at all.

        Args:
            class_name: of the node that made them.
            seconds: how long it would take to make them again, which is what keeping them saves.
        """
        ...

    def claim(self, key: Key) -> Claim | None:
        """The right to compute what is missing under the key, or None while somebody else has it.

        Whoever gets it looks again before computing: the one who had it before may have just put it there.
        """
        ...

    def flush(self) -> None:
        """Wait until every result so far is where it will stay."""
        ...


@dataclass(slots=True)
class StoreStatistics:
    """What happened to a store since it was made."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0


class FreeClaim:
    """What is granted to everybody: by a store that no other process shares, or where there is nothing to hold."""

    __slots__ = ()

    def release(self) -> None:
        """There is nothing to let go of."""


FREE = FreeClaim()


class MemoryStore:
    """Results in memory, at most `max_bytes` of them. Safe to use from several threads."""

    least_seconds = 0.0

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.nbytes = 0
        self.statistics = StoreStatistics()
        self._entries: OrderedDict[Key, tuple[Outputs, int]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: Key) -> bool:
        return key in self._entries

    def get(self, key: Key) -> Outputs | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                self.statistics.misses += 1
                return None
            self.statistics.hits += 1
            self._entries.move_to_end(key)
            return entry[0]

    def put(self, key: Key, outputs: Outputs, *, class_name: str = "", seconds: float = 0.0) -> None:
        nbytes = size_of(outputs)
        with self._lock:
            known = self._entries.pop(key, None)
            if known is not None:
                self.nbytes -= known[1]
            if nbytes > self.max_bytes:
                return
            self._entries[key] = (outputs, nbytes)
            self.nbytes += nbytes
            while self.nbytes > self.max_bytes:
                _, (_, freed) = self._entries.popitem(last=False)
                self.nbytes -= freed
                self.statistics.evictions += 1

    def claim(self, key: Key) -> Claim:
        """Granted at once: nobody else puts anything here."""
        return FREE

    def flush(self) -> None:
        """Memory is at once where it will stay."""
