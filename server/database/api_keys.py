"""API keys: who may do what. A key is shown once; what is kept of it cannot be turned back into it."""

import hmac
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Literal, get_args

from sqlalchemy import ColumnElement, insert, or_, select, update
from sqlalchemy.engine import Connection

from server.database.database import Database
from server.database.errors import WrongRequest
from server.database.rows import Row
from server.database.tables import api_key
from server.database.texts import storable

Scope = Literal["submit", "read", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
USE_NOTED_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """What is known of a key. `used` is true to a minute; `expires` and `revoked` end it."""

    id: str
    owner: str
    name: str
    scopes: frozenset[Scope]
    created: datetime
    expires: datetime | None
    used: datetime | None
    revoked: datetime | None


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key that was just made, and the text that its owner shows to get in."""

    key: ApiKey
    text: str


class ApiKeys:
    """The keys of a database. All methods raise DatabaseUnavailable when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, owner: str, scopes: Collection[Scope], name: str = "", expires: datetime | None = None
    ) -> NewApiKey:
        """Make a key.

        Args:
            owner: whose jobs, files and events it opens; up to 1,000 characters, at least one.
            name: what people call it.

        Raises:
            WrongRequest: there is no owner, no scope or an unknown one, or the key would be over before it begins.
        """
        now = self._database.now()
        unknown = [scope for scope in scopes if scope not in SCOPES]
        if unknown or not scopes:
            raise WrongRequest(f"a key has one or more of the scopes {', '.join(SCOPES)}{_but(unknown)}")
        if not storable("owner's name", owner):
            raise WrongRequest("a key has an owner")
        if expires is not None and expires <= now:
            raise WrongRequest(f"a key that expires at {expires} is over already")
        row = {
            "id": secrets.token_hex(6),
            "owner": owner,
            "name": storable("key's name", name),
            "scopes": sorted(scopes),
            "created": now,
            "expires": expires,
            "used": None,
            "revoked": None,
        }
        text = f"ll_{row['id']}_{secrets.token_urlsafe(32)}"

        def add(connection: Connection) -> Row:
            added = insert(api_key).values(**row, digest=_digest(text)).returning(api_key)
            return connection.execute(added).mappings().one()

        return NewApiKey(_key(await self._database.write(add)), text)

    async def verify(self, text: str) -> ApiKey | None:
        """The key that this is the text of. None: it is none, or it is over."""
        parts = text.split("_", 2)
        if len(parts) != 3 or len(text) > 100 or not text.isascii() or "\0" in text:
            return None
        now = self._database.now()

        def look(connection: Connection) -> Row | None:
            return connection.execute(select(api_key).where(api_key.c.id == parts[1])).mappings().first()

        row = await self._database.read(look)
        if row is None or not hmac.compare_digest(bytes(row["digest"]), _digest(text)):
            return None
        key = _key(row)
        if key.revoked is not None or key.expires is not None and key.expires <= now:
            return None
        if key.used is None or now - key.used >= USE_NOTED_EVERY:

            def note(connection: Connection) -> None:
                connection.execute(update(api_key).where(api_key.c.id == key.id).values(used=now))

            await self._database.write(note, durable=False)
        return key

    async def revoke(self, key_id: str) -> bool:
        """End a key at once. False: there is no such key, or it was revoked before."""
        now = self._database.now()
        which = (api_key.c.id == storable("key's id", key_id), api_key.c.revoked.is_(None))

        def change(connection: Connection) -> bool:
            return connection.execute(update(api_key).where(*which).values(revoked=now)).rowcount == 1

        return await self._database.write(change)

    async def all(self) -> Sequence[ApiKey]:
        """Every key there ever was, the oldest first."""

        def look(connection: Connection) -> Sequence[ApiKey]:
            rows = connection.execute(select(api_key).order_by(api_key.c.created, api_key.c.id))
            return [_key(row) for row in rows.mappings()]

        return await self._database.read(look)

    async def any_valid(self) -> bool:
        """Whether somebody could get in with a key."""
        now = self._database.now()

        def look(connection: Connection) -> bool:
            return connection.execute(select(api_key.c.id).where(*_valid(now)).limit(1)).first() is not None

        return await self._database.read(look)


def _valid(now: datetime) -> Sequence[ColumnElement[bool]]:
    return api_key.c.revoked.is_(None), or_(api_key.c.expires.is_(None), api_key.c.expires > now)


def _digest(text: str) -> bytes:
    # A fast digest will do: unlike a password, 256 random bits cannot be guessed however fast one guesses.
    return sha256(text.encode()).digest()


def _but(unknown: Sequence[str]) -> str:
    return f", not {', '.join(map(repr, unknown))}" if unknown else ""


def _key(row: Row) -> ApiKey:
    columns = ("id", "owner", "name", "created", "expires", "used", "revoked")
    return ApiKey(**{column: row[column] for column in columns}, scopes=frozenset(row["scopes"]))
