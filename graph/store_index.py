"""The index of the disk store: an SQLite table of what each entry cost, holds and is used; it decides what has to go.

The files are the truth, the index is a memory of them: whatever it has lost can be entered again from a file's label.
Every method is one transaction, so that processes which share a store see each other's work whole or not at all.
"""

import sqlite3
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from graph.entry_file import Label
from graph.keys import Key

VERSION = 1
BUSY_SECONDS = 10.0

SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS entry (
    key BLOB PRIMARY KEY, class_name TEXT NOT NULL, bytes INTEGER NOT NULL, seconds REAL NOT NULL,
    created REAL NOT NULL, used REAL NOT NULL, hits INTEGER NOT NULL, worth REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entry_worth ON entry (worth);
CREATE TABLE IF NOT EXISTS total (
    id INTEGER PRIMARY KEY CHECK (id = 0), entries INTEGER NOT NULL, bytes INTEGER NOT NULL,
    hits INTEGER NOT NULL, misses INTEGER NOT NULL, evictions INTEGER NOT NULL, floor REAL NOT NULL
);
INSERT OR IGNORE INTO total VALUES (0, 0, 0, 0, 0, 0, 0.0);
CREATE TRIGGER IF NOT EXISTS entry_added AFTER INSERT ON entry
    BEGIN UPDATE total SET entries = entries + 1, bytes = bytes + new.bytes; END;
CREATE TRIGGER IF NOT EXISTS entry_changed AFTER UPDATE OF bytes ON entry
    BEGIN UPDATE total SET bytes = bytes + new.bytes - old.bytes; END;
CREATE TRIGGER IF NOT EXISTS entry_removed AFTER DELETE ON entry
    BEGIN UPDATE total SET entries = entries - 1, bytes = bytes - old.bytes; END;
PRAGMA user_version = {VERSION};
COMMIT;
"""

# GreedyDual-Size with frequency (Cherkasova 1998, after Cao and Irani 1997): see StoreIndex.
READING = 0.001
"""Seconds that any entry saves at least, so that results that cost nothing are told apart by size and use."""
BLOCK = 4096
"""Bytes that a file takes at least."""
WORTH = f"(SELECT floor FROM total) + (:seconds + {READING}) * (:hits + 1) / (:bytes + {BLOCK})"
ADD = f"""
INSERT INTO entry VALUES (:key, :class_name, :bytes, :seconds, :created, :used, :hits, {WORTH})
ON CONFLICT (key) DO UPDATE SET class_name = excluded.class_name, bytes = excluded.bytes, seconds = excluded.seconds,
    created = excluded.created, used = max(used, excluded.used), worth = max(worth, excluded.worth)
"""
USE = f"""
UPDATE entry SET hits = hits + :times, used = max(used, :now),
    worth = (SELECT floor FROM total) + (seconds + {READING}) * (hits + :times + 1) / (bytes + {BLOCK})
WHERE key = :key
"""
COUNT = "UPDATE total SET (entries, bytes) = (SELECT count(*), coalesce(sum(bytes), 0) FROM entry)"


@dataclass(frozen=True, slots=True)
class Totals:
    """What a store holds, and what happened to it since it was made."""

    entries: int = 0
    bytes: int = 0
    hits: int = 0
    misses: int = 0
    evictions: int = 0

    @property
    def hit_rate(self) -> float | None:
        """Of the look-ups that reached the disk; None before the first."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else None


@dataclass(frozen=True, slots=True)
class ClassTotals:
    """What a store holds of one class of nodes."""

    class_name: str
    entries: int
    bytes: int
    largest: int
    seconds: float
    hits: int


class StoreIndex:
    """An open index, for one thread.

    When room is needed, the entry of least worth goes, where

        worth = floor + seconds * (hits + 1) / bytes

    at the time of its last use, and `floor` is the worth of the last entry that went. So what is dear to make and small
    stays longest, and what is used often; and since the floor rises, what nobody uses sinks below what is
    new, however dear it was once. Against plain least-recently-used this keeps a step's state of 64 KB that took a
    second when a decoded picture of 3 MB that took a tenth of one has to go.
    """

    def __init__(self, path: Path) -> None:
        """Open or make an index. Raises OSError, sqlite3.Error."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            self.inode = path.stat().st_ino
            _patiently(self._prepare)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        self._connection.close()

    def _prepare(self) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version not in (0, VERSION):
            raise sqlite3.DatabaseError(f"it is of version {version}, this is {VERSION}")
        # Without a sync at every commit a power cut may lose the last rows; their files say what was in them.
        self._connection.execute("PRAGMA synchronous = NORMAL")
        if version == 0:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.executescript(SCHEMA)

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    # Keeping up

    def record(
        self,
        added: Iterable[tuple[Label, int]] = (),
        uses: Mapping[Key, int] | None = None,
        misses: int = 0,
        lost: Iterable[Key] = (),
    ) -> set[Key]:
        """Entries that were written, with their bytes; how often others were used; look-ups in vain; files gone.

        Returns what was used and is not known.
        """
        now = time.time()
        used = uses or {}
        with self._transaction() as connection:
            connection.executemany("DELETE FROM entry WHERE key = ?", [(key,) for key in lost])
            connection.executemany(ADD, [_row(label, nbytes, now) for label, nbytes in added])
            unknown = {
                key
                for key, times in used.items()
                if not connection.execute(USE, {"key": key, "times": times, "now": now}).rowcount
            }
            connection.execute("UPDATE total SET hits = hits + ?, misses = misses + ?", (sum(used.values()), misses))
        return unknown

    def enter(self, found: Sequence[tuple[Label, int]], uses: Mapping[Key, int]) -> None:
        """Entries that were used, which `record` has counted, and did not know."""
        now = time.time()
        with self._transaction() as connection:
            connection.executemany(ADD, [_row(label, nbytes, now) for label, nbytes in found])
            rows = [{"key": label.key, "times": uses[label.key], "now": now} for label, _ in found]
            connection.executemany(USE, rows)

    def evict(self, max_bytes: int, unlink: Callable[[Key], None]) -> int:
        """Let entries go until the rest fits. Returns how many went.

        Files go before their rows: when this process dies in between, rows without files are left, which take no room.
        """
        if self.totals().bytes <= max_bytes:
            return 0
        with self._transaction() as connection:
            (excess,) = connection.execute("SELECT bytes - ? FROM total", (max_bytes,)).fetchone()
            gone: list[tuple[Key]] = []
            floor = 0.0
            if excess > 0:
                for key, nbytes, worth in connection.execute("SELECT key, bytes, worth FROM entry ORDER BY worth"):
                    unlink(key)
                    gone.append((key,))
                    floor = worth
                    excess -= nbytes
                    if excess <= 0:
                        break
            connection.executemany("DELETE FROM entry WHERE key = ?", gone)
            connection.execute("UPDATE total SET floor = max(floor, ?), evictions = evictions + ?", (floor, len(gone)))
            if excess > 0:  # nothing is left, so the sum was wrong
                connection.execute(COUNT)
            return len(gone)

    def keys_between(self, first: Key, after: Key) -> set[Key]:
        """The keys from `first` on, before `after`."""
        rows = self._connection.execute("SELECT key FROM entry WHERE key >= ? AND key < ?", (first, after))
        return {key for (key,) in rows}

    # Looking

    def totals(self) -> Totals:
        row = self._connection.execute("SELECT entries, bytes, hits, misses, evictions FROM total").fetchone()
        return Totals(*row)

    def by_class(self) -> Sequence[ClassTotals]:
        """The classes of nodes, those with the most bytes first."""
        rows = self._connection.execute(
            "SELECT class_name, count(*), sum(bytes), max(bytes), sum(seconds), sum(hits) FROM entry "
            "GROUP BY class_name ORDER BY sum(bytes) DESC, class_name"
        )
        return [ClassTotals(*row) for row in rows]

    def chosen(
        self, class_name: str | None = None, larger_than: int | None = None, used_before: float | None = None
    ) -> Mapping[Key, int]:
        """The bytes of all entries that fulfil every condition given."""
        rows = self._connection.execute(
            "SELECT key, bytes FROM entry WHERE (?1 IS NULL OR class_name = ?1) AND (?2 IS NULL OR bytes > ?2) "
            "AND (?3 IS NULL OR used < ?3)",
            (class_name, larger_than, used_before),
        )
        return dict(rows.fetchall())


def _patiently(action: Callable[[], None]) -> None:
    """SQLite does not wait by itself while another process turns a new file into a database."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(0.01)


def _row(label: Label, nbytes: int, now: float) -> dict[str, object]:
    return {
        "key": label.key,
        "class_name": label.class_name,
        "bytes": nbytes,
        "seconds": label.seconds,
        "created": label.created,
        "used": now,
        "hits": 0,
    }
