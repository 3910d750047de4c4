"""Which server this is among those that share a data folder: after a restart it finds its jobs under the same name.

The name is the folder's own plus the lowest number that no living server has: a lock on a file of that number, which
the system lets go when its holder dies.
"""

import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

if sys.platform != "win32":
    import fcntl

MOST_SERVERS = 100
FOLDER = "servers"


@dataclass(slots=True)
class Instance:
    """A name that no other living server has. `close` lets go of it."""

    name: str
    _descriptor: int | None

    def close(self) -> None:
        """Let another server have the name."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def take_instance(data: Path) -> Instance:
    """Take the first name that is free. Raises OSError."""
    folder = data / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    identity = _identity(folder / "id")
    for number in range(MOST_SERVERS):
        descriptor = os.open(folder / f"{number}.lock", os.O_CREAT | os.O_RDWR, 0o600)
        if _locked(descriptor):
            return Instance(f"{identity}-{number}", descriptor)
        os.close(descriptor)
    raise OSError(f"{MOST_SERVERS} servers use {data} already")


def _locked(descriptor: int) -> bool:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _identity(path: Path) -> str:
    """What tells this folder from others whose servers share the database."""
    fresh = path.with_name(f".{secrets.token_hex(8)}")
    fresh.write_text(secrets.token_hex(8))
    try:
        # Two servers that start at the same time agree on one of them, which is whole from the start.
        os.link(fresh, path)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    return path.read_text().strip()
