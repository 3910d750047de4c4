"""The disk tier of the store: results in files, shared by every process of one data folder, kept when it ends."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from weakref import finalize

from graph.codec import Codec, Unreadable
from graph.entry_file import read_entry
from graph.keys import Key
from graph.leases import Leases
from graph.store import FREE, Claim, Outputs
from graph.store_folder import StoreFolder
from graph.store_writer import StoreWriter

log = logging.getLogger("latentloom.store")


@dataclass(eq=False, slots=True)
class _DiskClaim:
    key: Key
    lease: Claim
    writer: StoreWriter

    def release(self) -> None:
        self.writer.after(self.key, self.lease.release)


class DiskStore:
    """Results below a folder, at most `max_bytes` of them. Safe for several threads and several processes.

    A look-up is the reading of one file; the index is not asked, so a store of any size opens at once. Writing happens
    on another thread (`flush` waits for it, and so does the end of the process). Nothing here raises for what the
    disk does: an entry that is damaged is dropped, a disk that refuses is warned of once.
    """

    least_seconds = 0.0

    def __init__(self, folder: Path, max_bytes: int, codec: Codec) -> None:
        self.folder = StoreFolder(folder)
        self._codec = codec
        self._writer = StoreWriter(self.folder, max_bytes, codec)
        self._leases = Leases(self.folder.leases)
        # Also at the end of the process, while its threads still run.
        self._close = finalize(self, _close, self._writer, self._leases)
        self._warned = False

    def __contains__(self, key: Key) -> bool:
        return self._writer.waiting(key) is not None or self.folder.path(key).exists()

    def get(self, key: Key) -> Outputs | None:
        """The outputs kept under the key, checked byte by byte; or None."""
        waiting = self._writer.waiting(key)
        if waiting is not None:
            return waiting
        try:
            outputs = read_entry(self.folder.name(key), key, self._codec)
        except Unreadable as error:
            self._drop(key, error)
        except OSError:
            pass  # not there, or not to be read now
        else:
            if isinstance(outputs, tuple):
                self._writer.used(key)
                return cast(Outputs, outputs)
        self._writer.missed()
        return None

    def put(self, key: Key, outputs: Outputs, *, class_name: str = "", seconds: float = 0.0) -> None:
        """Have outputs kept under the key. They must not change any more."""
        self._writer.put(key, outputs, class_name, seconds)

    def claim(self, key: Key) -> Claim | None:
        """The right to compute what is missing, among all processes of the folder; it ends when its holder dies.

        Releasing it does not wait for the disk: it takes effect once what was put under the key has been written, or
        has turned out not to be kept.
        """
        lease = self._leases.claim(key)
        return lease if lease is None or lease is FREE else _DiskClaim(key, lease, self._writer)

    def touch(self, key: Key) -> None:
        """Note that an entry was of use, though another tier had it."""
        self._writer.used(key)

    def flush(self, uses: bool = False) -> None:
        """Wait until every result so far is on the disk; also, if told so, until it is known there what was used."""
        self._writer.flush(uses)

    def close(self) -> None:
        """Write what is left and let the files go. What is put afterwards is not kept."""
        self._close()

    def _drop(self, key: Key, error: Unreadable) -> None:
        level = logging.DEBUG if self._warned else logging.WARNING
        self._warned = True
        log.log(level, "an entry of the store is dropped and will be made again: %s (%s)", error, self.folder.path(key))
        try:
            self.folder.remove(key)
        except OSError:
            return
        self._writer.lost(key)


def _close(writer: StoreWriter, leases: Leases) -> None:
    writer.close()
    leases.close()
