"""The keeper of a store's index: enters what was written, lets entries go, and mends what a dead process left behind.

An index that is damaged is set aside and begun anew. The files it knew of are entered again when they are used, or when
their shelf's turn comes: one shelf is looked through after every batch, so opening a store never lists it.
"""

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from random import randrange
from typing import TypeVar

from graph.entry_file import Label
from graph.keys import Key
from graph.store_folder import SHELVES, StoreFolder
from graph.store_index import ClassTotals, StoreIndex, Totals

log = logging.getLogger("latentloom.store")

SHELF_SECONDS = 1.0
"""At least this long between two shelves."""

T = TypeVar("T")


class StoreKeeper:
    """Keeps one folder within its bounds. For one thread; raises OSError and sqlite3.Error."""

    def __init__(self, folder: StoreFolder, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._index: StoreIndex | None = None
        self._shelf = randrange(SHELVES)  # so that short runs do not all look at the same one
        self._looked = -SHELF_SECONDS

    def open(self) -> None:
        """Make sure that there is an index, so that nothing is written that is not bounded."""
        self._with_index(lambda index: None)

    def record(
        self,
        added: Sequence[tuple[Label, int]] = (),
        uses: Mapping[Key, int] | None = None,
        misses: int = 0,
        lost: Sequence[Key] = (),
    ) -> None:
        """Enter what happened, also what was used and is not known, and let entries go until the rest fits."""
        used = uses or {}
        unknown = self._with_index(lambda index: index.record(added, used, misses, lost))
        found = [known for key in unknown if (known := self.folder.label(self.folder.path(key)))]
        if found:
            self._with_index(lambda index: index.enter(found, used))
        self._with_index(lambda index: index.evict(self.max_bytes, self.folder.remove))

    def tidy(self) -> None:
        """Look through the next shelf, if the last one was a while ago."""
        if time.monotonic() - self._looked < SHELF_SECONDS:
            return
        self._shelf = (self._shelf + 1) % SHELVES
        self.reconcile(self._shelf)
        self._looked = time.monotonic()

    def reconcile(self, number: int) -> None:
        """Make the index say what lies on a shelf."""
        first = bytes([number])
        after = bytes([number + 1]) if number < SHELVES - 1 else b"\xff" * 33
        # The rows first: a file that is added while we look is then at worst entered twice, never forgotten.
        known = self._with_index(lambda index: index.keys_between(first, after))
        present = dict(self.folder.found(number))
        added = [found for key, path in present.items() if key not in known if (found := self.folder.label(path))]
        lost = [key for key in known if key not in present]
        if added or lost:
            self._with_index(lambda index: index.record(added, lost=lost))

    def reconcile_all(self) -> None:
        """Make the index say what lies anywhere. The one thing here that takes longer the more there is."""
        for number in range(SHELVES):
            self.reconcile(number)

    def clear(
        self, class_name: str | None = None, larger_than: int | None = None, used_before: float | None = None
    ) -> tuple[int, int]:
        """Remove all entries that fulfil every condition given. Returns how many they were, and their bytes."""
        chosen = self._with_index(lambda index: index.chosen(class_name, larger_than, used_before))
        for key in chosen:
            self.folder.remove(key)
        self._with_index(lambda index: index.record(lost=list(chosen)))
        return len(chosen), sum(chosen.values())

    def totals(self) -> Totals:
        return self._with_index(lambda index: index.totals())

    def by_class(self) -> Sequence[ClassTotals]:
        return self._with_index(lambda index: index.by_class())

    def close(self) -> None:
        if self._index is not None:
            self._index.close()
            self._index = None

    def _with_index(self, action: Callable[[StoreIndex], T]) -> T:
        """Do something with the index; once more with a new one, if this one turns out to be damaged."""
        try:
            return action(self._opened())
        except sqlite3.Error as error:
            if not _damaged(error):
                raise
            self._set_aside(error)
        return action(self._opened())

    def _opened(self) -> StoreIndex:
        if self._index is not None and _inode(self.folder.index) != self._index.inode:
            self.close()  # somebody deleted the folder, or set the index aside: what we have is not where others look
        if self._index is None:
            self._index = StoreIndex(self.folder.index)
        return self._index

    def _set_aside(self, error: sqlite3.Error) -> None:
        path = self.folder.index
        ours = self._index.inode if self._index is not None else _inode(path)
        self.close()
        # Another process may have done the same a moment ago: then the new one stays.
        if _inode(path) == ours:
            aside = path.with_name(f"{path.stem}.damaged-{time.time_ns()}")
            with suppress(FileNotFoundError):
                os.replace(path, aside)
            for rest in ("-wal", "-shm"):
                path.with_name(path.name + rest).unlink(missing_ok=True)
            log.warning(
                "the index of the store was damaged (%s); it is now %s, and a new one is begun: no result is lost",
                error,
                aside,
            )


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _damaged(error: sqlite3.Error) -> bool:
    """Whether the file itself is wrong: not locked, not full, not forbidden."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return type(error) is sqlite3.DatabaseError or code in (
        sqlite3.SQLITE_ERROR,  # a table is not there, or not as it was
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    )
