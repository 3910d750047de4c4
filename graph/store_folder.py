"""The folder of a disk store: where its entries lie, how they get there whole, and what is found there by chance."""

import itertools
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from graph.codec import Encoded, Unreadable
from graph.entry_file import Label, read_label, write_entry
from graph.keys import Key

SHELVES = 256
SUFFIX = ".safetensors"
ABANDONED_SECONDS = 3600.0
"""A temporary file this old belongs to a process that died."""

_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class StoreFolder:
    """`entries/ab/ab….safetensors`, `index.sqlite3` and `leases` below one folder. None is made before it is needed."""

    root: Path

    @property
    def index(self) -> Path:
        return self.root / "index.sqlite3"

    @property
    def leases(self) -> Path:
        return self.root / "leases"

    def shelf(self, number: int) -> Path:
        """One of the folders that the entries are spread over, by the first byte of their key."""
        return self.root / "entries" / f"{number:02x}"

    def path(self, key: Key) -> Path:
        return Path(self.name(key))

    def name(self, key: Key) -> str:
        """The path of an entry as text, which is quicker to make than a `Path`."""
        return f"{self.root}/entries/{key[0]:02x}/{key.hex()}{SUFFIX}"

    def write(self, label: Label, encoded: Encoded) -> int:
        """Put an entry in its place, whole or not at all; returns its bytes. Raises OSError.

        A power cut may leave it there damaged, which is found when it is read; `sync` makes that unlikely.
        """
        path = self.path(label.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.stem}.{os.getpid()}-{next(_numbers)}.tmp")
        try:
            with open(temporary, "xb", buffering=0) as file:
                nbytes = write_entry(file, label, encoded)
            os.replace(temporary, path)
            return nbytes
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise

    def sync(self, key: Key) -> None:
        """Make an entry safe from a power cut, if it is still there. Raises OSError."""
        with suppress(FileNotFoundError), open(self.path(key), "rb") as file:
            os.fsync(file.fileno())

    def remove(self, key: Key) -> None:
        """Take an entry away; it may be gone already."""
        self.path(key).unlink(missing_ok=True)

    def found(self, number: int) -> Iterator[tuple[Key, Path]]:
        """The entries on a shelf. Temporary files that nobody writes any more are removed on the way."""
        try:
            with os.scandir(self.shelf(number)) as files:
                for file in files:
                    if file.name.endswith(".tmp"):
                        self._clear_away(file)
                    elif (key := _key(file.name)) is not None and key[0] == number:
                        yield key, Path(file.path)
        except FileNotFoundError:
            return

    def label(self, path: Path) -> tuple[Label, int] | None:
        """What an entry says of itself; one that says nothing is removed. Raises OSError."""
        try:
            return read_label(path)
        except Unreadable:
            path.unlink(missing_ok=True)
        except FileNotFoundError:
            pass
        return None

    def _clear_away(self, file: "os.DirEntry[str]") -> None:
        with suppress(FileNotFoundError):
            if file.stat().st_mtime < time.time() - ABANDONED_SECONDS:
                os.unlink(file.path)


def _key(name: str) -> Key | None:
    stem, suffix = os.path.splitext(name)
    try:
        return bytes.fromhex(stem) or None if suffix == SUFFIX else None
    except ValueError:
        return None
