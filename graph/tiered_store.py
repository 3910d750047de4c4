"""Two tiers as one store: memory in front of the disk."""

from graph.disk_store import DiskStore
from graph.keys import Key
from graph.store import Claim, MemoryStore, Outputs


class TieredStore:
    """What is asked for again comes from memory; what memory has let go, or another process made, from the disk."""

    def __init__(self, memory: MemoryStore, disk: DiskStore) -> None:
        self.memory = memory
        self.disk = disk

    def __contains__(self, key: Key) -> bool:
        return key in self.memory or key in self.disk

    def get(self, key: Key) -> Outputs | None:
        outputs = self.memory.get(key)
        if outputs is not None:
            self.disk.touch(key)
            return outputs
        outputs = self.disk.get(key)
        if outputs is not None:
            self.memory.put(key, outputs)
        return outputs

    def put(self, key: Key, outputs: Outputs, *, class_name: str = "", seconds: float = 0.0) -> None:
        self.memory.put(key, outputs)
        self.disk.put(key, outputs, class_name=class_name, seconds=seconds)

    def claim(self, key: Key) -> Claim | None:
        return self.disk.claim(key)

    def flush(self) -> None:
        self.disk.flush()
