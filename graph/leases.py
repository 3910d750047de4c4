"""Leases: the right to compute what a key names, among all processes that share a folder; it ends with its holder.

A lease is a lock on one byte of one file, at an offset that the key gives. The system lets go of it when the process
dies, of whatever death, and nothing is left behind that would have to be cleared away. Such locks belong to a process
and not to a file descriptor: within a process they exclude nobody, and whatever descriptor of the file is closed takes
all of them along. So a process has one descriptor of each such file, and remembers which offsets it holds.
"""

import logging
import os
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from weakref import finalize

from graph.keys import Key
from graph.store import FREE, Claim

if sys.platform != "win32":
    import fcntl

log = logging.getLogger("latentloom.store")

OFFSETS = 1 << 62
"""As far as files can reach; that two keys get the same offset is not to be expected."""

_Identity = tuple[int, int]


@dataclass(eq=False)
class _LeaseFile:
    """The one descriptor that this process has of a file of leases. It is closed when nobody knows of it any more."""

    descriptor: int
    users: int = 0
    held: "dict[int, Lease]" = field(default_factory=dict[int, "Lease"])

    def __post_init__(self) -> None:
        finalize(self, os.close, self.descriptor)


_files: dict[_Identity, _LeaseFile] = {}
"""By device and inode: names lead to the same file in many ways, and a file may be deleted and made again."""

_lock = RLock()
"""Of the table, for opening and closing. Claims and releases do without: a store that is collected in the middle of
another one's claim waits for its own thread, which may have leases to release."""


def _after_fork() -> None:
    """A child has none of its parent's leases, and another thread may have held the lock."""
    global _lock
    _lock = RLock()
    for file in _files.values():
        file.held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Lease:
    """A right that was granted. `release` may be called from any thread, and again."""

    __slots__ = ("_file", "_offset")

    def __init__(self, file: _LeaseFile, offset: int) -> None:
        self._file = file
        self._offset = offset

    def granted(self) -> bool:
        """Ask for it. Raises OSError where the file system has no locks."""
        if sys.platform == "win32" or self._file.held.setdefault(self._offset, self) is not self:
            return False
        try:
            fcntl.lockf(self._file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._offset)
        except (BlockingIOError, PermissionError):  # either may say that another process has it
            del self._file.held[self._offset]
            return False
        except BaseException:
            del self._file.held[self._offset]
            raise
        return True

    def release(self) -> None:
        """Let somebody else have it."""
        held = self._file.held
        if sys.platform == "win32" or held.get(self._offset) is not self:  # released before, or granted before a fork
            return
        with suppress(OSError):
            fcntl.lockf(self._file.descriptor, fcntl.LOCK_UN, 1, self._offset)
        held.pop(self._offset, None)


class Leases:
    """The leases of one file, for one of its users in this process. Safe for several threads.

    Where the system has no such locks, or the file cannot be written, every claim is granted: work may then be done
    twice, and nothing is wrong.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._identity: _Identity | None = None
        self._file: _LeaseFile | None = None
        self._told = False

    def claim(self, key: Key) -> Claim | None:
        """The lease of a key, or None while somebody else has it, in this process or in another."""
        if sys.platform == "win32":
            return self._free("this system has no locks that end with their holder")
        try:
            lease = Lease(self._current(), int.from_bytes(key[:8], "little") % OFFSETS)
            return lease if lease.granted() else None
        except OSError as error:
            return self._free(error)

    def close(self) -> None:
        """Claim no more. What is held stays held until it is released."""
        with _lock:
            self._leave()

    def _current(self) -> _LeaseFile:
        """The file that has the path now: its folder may have been deleted since the last claim. Raises OSError."""
        file = self._file
        if file is None or _identity(self._path) != self._identity:
            with _lock:
                self._leave()
                file = self._enter()
        return file

    def _enter(self) -> _LeaseFile:
        identity = _identity(self._path)
        if identity is None or identity not in _files:
            Path(self._path).parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            status = os.fstat(descriptor)
            identity = status.st_dev, status.st_ino
            _files[identity] = _LeaseFile(descriptor)
        self._identity, self._file = identity, _files[identity]
        self._file.users += 1
        return self._file

    def _leave(self) -> None:
        if self._file is not None:
            self._file.users -= 1
            self._identity = self._file = None
        for identity, file in list(_files.items()):
            if not file.users and not file.held:
                del _files[identity]

    def _free(self, reason: object) -> Claim:
        if not self._told:
            self._told = True
            log.info("processes that share this store may compute the same at once: %s (%s)", reason, self._path)
        return FREE


def _identity(path: str) -> _Identity | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
