"""Keys that the person who starts the server states. Those that `latentloom keys` makes are in the database."""

import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, Protocol

from server.web.files.owner_folders import LOCAL

Scope = Literal["submit", "read", "admin"]
ALL_SCOPES: frozenset[Scope] = frozenset({"submit", "read", "admin"})
SHORTEST_KEY = 16

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
