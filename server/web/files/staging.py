"""New files: received under a hidden name, and then given their own, whole or not at all."""

import errno
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Protocol

from nodes.output_names import NO_HARD_LINKS

PIECE = 1024 * 1024
STALE_SECONDS = 24 * 3600
MOST_NAMES = 10_000


class Hash(Protocol):
    """What hashlib makes."""

    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


@dataclass(slots=True)
class StagedFile:
    """A file that has no name of its own yet. For threads: everything here waits for the disk.

    Args:
        path: hidden; in a folder of its own, for where the file is to go is known later.
    """

    path: Path
    size: int = 0
    _hash: Hash = field(default_factory=sha256)

    @staticmethod
    def new(folder: Path) -> "StagedFile":
        """An empty file in this folder, which is made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        staged = StagedFile(folder / f".{secrets.token_hex(16)}.part")
        staged.path.open("xb").close()
        return staged

    @property
    def digest(self) -> str:
        """SHA-256 of what was written."""
        return self._hash.hexdigest()

    def append(self, data: bytes) -> None:
        """Write more of it."""
        with self.path.open("ab") as file:
            file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def discard(self) -> None:
        """Forget it, if it is still here."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def publish(self, path: Path, overwrite: bool) -> bool:
        """Give it its name; the folder is made if need be. False: there is such a file, and it is to stay."""
        path.parent.mkdir(parents=True, exist_ok=True)
        _sync(self.path)
        try:
            return self._name(path, overwrite)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        self._move_beside(path)
        return self._name(path, overwrite)

    def _name(self, path: Path, overwrite: bool) -> bool:
        if overwrite:
            os.replace(self.path, path)
            return True
        return claim(self.path, path)

    def publish_as_new(self, path: Path) -> Path:
        """Give it this name, or `name (1)`, `name (2)` …, if another file has it already; the same file is not kept
        twice. Returns the name.
        """
        for candidate in _candidates(path):
            if self.publish(candidate, overwrite=False) or self._is_same(candidate):
                return candidate
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))

    def _is_same(self, path: Path) -> bool:
        with suppress(OSError):
            return path.is_file() and path.stat().st_size == self.size and digest_of(path) == self.digest
        return False

    def _move_beside(self, path: Path) -> None:
        """To the same disk: only there can a file be given another name."""
        near = path.with_name(f".{secrets.token_hex(16)}.part")
        try:
            shutil.copyfile(self.path, near)
            _sync(near)
        except BaseException:
            near.unlink(missing_ok=True)
            raise
        self.discard()
        self.path = near


def _candidates(path: Path) -> Iterator[Path]:
    yield path
    for number in count(1):
        if number > MOST_NAMES:
            return
        yield path.with_name(f"{path.stem} ({number}){path.suffix}")


def write_whole(path: Path, data: bytes) -> None:
    """Put this in the place of whatever is there; no reader ever sees half of it. For threads."""
    staged = StagedFile.new(path.parent)
    try:
        staged.append(data)
        staged.publish(path, overwrite=True)
    finally:
        staged.discard()


_claiming = threading.Lock()


def claim(source: Path, path: Path) -> bool:
    """Move a file to a name that nobody has yet. False: somebody has it."""
    try:
        os.link(source, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        # Disks such as exFAT: there it is safe among the uploads of this process, who are the only ones here.
        with _claiming:
            if os.path.lexists(path):
                return False
            os.rename(source, path)
        return True
    source.unlink()
    return True


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    digest = sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def remove_stale(folder: Path) -> None:
    """Remove what uploads left that a killed process did not finish. For threads."""
    with suppress(OSError):
        for entry in os.scandir(folder):
            if entry.name.endswith(".part") and entry.stat().st_mtime < time.time() - STALE_SECONDS:
                Path(entry.path).unlink(missing_ok=True)
