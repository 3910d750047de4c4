"""Two tiers as one store: memory in front of the disk."""

from dataclasses import dataclass
from threading import Lock

from graph.disk_store import DiskStore
from graph.keys import Key
from graph.store import Claim, MemoryStore, Outputs


@dataclass(slots=True)
class Lookups:
    """How often a store was asked, by where the answer was; `missed`: nowhere."""

    memory: int = 0
    disk: int = 0
    missed: int = 0


class TieredStore:
    """What is asked for again comes from memory; what memory has let go, or another process made, from the disk.

    What is made again as fast as it would be read stays in memory alone.
    """

    least_seconds = 0.001

    def __init__(self, memory: MemoryStore, disk: DiskStore) -> None:
        self.memory = memory
        self.disk = disk
        self.lookups = Lookups()
        self._counting = Lock()

    def __contains__(self, key: Key) -> bool:
        return key in self.memory or key in self.disk

    def get(self, key: Key) -> Outputs | None:
        outputs = self.memory.get(key)
        if outputs is not None:
            with self._counting:
                self.lookups.memory += 1
            self.disk.touch(key)
            return outputs
        outputs = self.disk.get(key)
        with self._counting:
            if outputs is None:
                self.lookups.missed += 1
            else:
                self.lookups.disk += 1
        if outputs is not None:
            self.memory.put(key, outputs)
        return outputs

    def put(self, key: Key, outputs: Outputs, *, class_name: str = "", seconds: float = 0.0) -> None:
        self.memory.put(key, outputs)
        if seconds >= self.least_seconds:
            self.disk.put(key, outputs, class_name=class_name, seconds=seconds)

    def claim(self, key: Key) -> Claim | None:
        return self.disk.claim(key)

    def flush(self) -> None:
        self.disk.flush()
