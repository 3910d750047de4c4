"""Keys that the person who starts the server states, or that it makes for them. Those of others are in the database."""

import hmac
import os
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal, Protocol

from server.web.files.owner_folders import LOCAL

Scope = Literal["submit", "read", "admin"]
ALL_SCOPES: frozenset[Scope] = frozenset({"submit", "read", "admin"})
SHORTEST_KEY = 16
KEY_FILE = "api_key"

_OWNER = re.compile(r"[A-Za-z0-9_.@-]{1,64}")
_KEY = re.compile(r"[\x21-\x7e]+")


class HeldKey(Protocol):
    """What a key opens."""

    @property
    def owner(self) -> str: ...
    @property
    def scopes(self) -> frozenset[Scope]: ...


class KeyRing(Protocol):
    """Knows keys."""

    async def verify(self, text: str) -> HeldKey | None:
        """What this key opens; None: it is none."""
        ...


@dataclass(frozen=True, slots=True)
class StatedKey:
    """A key, and whose it is. It may do everything."""

    owner: str
    digest: bytes
    scopes: frozenset[Scope] = ALL_SCOPES

    @staticmethod
    def parse(text: str) -> "StatedKey":
        """`KEY`, or `OWNER=KEY`. Raises ValueError, which says how a key should be."""
        owner, separator, key = text.partition("=")
        # A key may hold = itself, most often at its end.
        if not separator or not _OWNER.fullmatch(owner) or len(key) < SHORTEST_KEY:
            owner, key = LOCAL, text
        if len(key) < SHORTEST_KEY or not _KEY.fullmatch(key):
            raise ValueError(
                f"an API key has {SHORTEST_KEY} or more letters, digits and signs, without spaces: "
                f"{secrets.token_urlsafe(24)} would do"
            )
        return StatedKey(owner, _digest(key))


class StatedKeys:
    """A ring of stated keys."""

    def __init__(self, keys: Iterable[StatedKey]) -> None:
        self._keys: Sequence[StatedKey] = tuple(keys)

    def __len__(self) -> int:
        return len(self._keys)

    async def verify(self, text: str) -> StatedKey | None:
        """What this key opens."""
        digest = _digest(text)
        # All are compared, and in the same time, whichever it is.
        fitting = [key for key in self._keys if hmac.compare_digest(key.digest, digest)]
        return fitting[0] if fitting else None


def _digest(key: str) -> bytes:
    return sha256(key.encode(errors="surrogatepass")).digest()


@dataclass(frozen=True, slots=True)
class StoredKey:
    """The key in the data folder. `is_new`: it was made just now, and is to be shown this once."""

    text: str
    path: Path
    is_new: bool


def stored_key(data: Path) -> StoredKey:
    """The key of this installation; made when there is none, in a file that only its owner may read.

    Raises OSError, or ValueError if the file holds none.
    """
    path = data / KEY_FILE
    data.mkdir(parents=True, exist_ok=True)
    text = f"ll_{secrets.token_urlsafe(32)}"
    temporary = data / f".{KEY_FILE}.{secrets.token_hex(8)}"
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        # Two servers that start at the same time agree on one of them.
        os.link(temporary, path)
        return StoredKey(text, path, True)
    except FileExistsError:
        return StoredKey(_read(path), path, False)
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> str:
    text = path.read_text(encoding="ascii", errors="replace").strip()
    if len(text) < SHORTEST_KEY or not _KEY.fullmatch(text):
        raise ValueError(f"{path} holds no API key; delete it, and another one will be made")
    return text
