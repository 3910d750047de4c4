"""Who may come in: a key opens what its scopes say, of what is its owner's.

A key is taken from `Authorization: Bearer`, from `X-API-Key`, from the cookie that the login page sets, and, where a
page cannot send anything else (pictures, websockets), from `?key=`.
"""

import ipaddress
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal
from urllib.parse import quote

from aiohttp import hdrs, web

from server.database.errors import DatabaseError
from server.web.files.owner_folders import LOCAL
from server.web.keys import ALL_SCOPES, KeyRing, Scope
from server.web.problems import Refused
from server.web.rates import Rate

LOGGER = logging.getLogger("latentloom.web")

COOKIE = "latentloom_key"
KEY_HEADER = "X-API-Key"
KEY_PARAMETER = "key"
LONGEST_KEY = 1000
LOGIN = "/login"

Need = Scope | Literal["nothing"]
"""What a key has to allow; `nothing`: no key is asked for."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what they may do."""

    owner: str
    scopes: frozenset[Scope]

    def may(self, need: Need) -> bool:
        """Whether that is allowed; whoever administrates may do everything."""
        return need == "nothing" or need in self.scopes or "admin" in self.scopes


EVERYBODY = Caller(LOCAL, ALL_SCOPES)
"""Whoever comes to a server that asks for no keys."""
NOBODY = Caller("", frozenset())

CALLER = web.RequestKey("caller", Caller)


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Lets callers in.

    Args:
        rings: where keys are known; none: the door stands open.
        failures: how often an address may come with a wrong key.
        requests: how often one caller may ask for anything; None: as often as they like.
    """

    rings: Sequence[KeyRing] = ()
    failures: Rate = field(default_factory=lambda: Rate(burst=10, per_second=0.1))
    requests: Rate | None = None
    # Wrong keys by address. A page that keeps asking with a cookie that is no longer good is not guessing.
    _wrong: dict[str, bytes] = field(default_factory=dict[str, bytes])

    @property
    def is_open(self) -> bool:
        """Whether no keys are asked for."""
        return not self.rings

    async def admit(self, request: web.Request, need: Need, key_in_url: bool) -> Caller:
        """Who it is that asks. Raises Refused, or a redirection to the login page for a person without a key."""
        caller = EVERYBODY if self.is_open else await self._known(request, need, key_in_url)
        self._count(request, caller)
        if not caller.may(need):
            raise Refused(403, f"this key does not allow that; it would have to have the scope {need!r}")
        return caller

    async def still_admits(self, request: web.Request, need: Need, key_in_url: bool) -> bool:
        """Whether whoever was admitted with this request would be admitted now. Counts as no request."""
        if self.is_open:
            return True
        caller = await self._owner_of(_key_of(request, key_in_url) or "")
        return caller is not None and caller.may(need)

    async def _known(self, request: web.Request, need: Need, key_in_url: bool) -> Caller:
        if need == "nothing":
            return NOBODY
        text = _key_of(request, key_in_url)
        if not text:
            self._count(request, NOBODY)
            raise _without_key(request)
        return await self.recognise(text, address_of(request))

    async def recognise(self, text: str, address: str) -> Caller:
        """Whose key this is. Raises Refused, also for right keys when too many wrong ones came from an address."""
        wait = self.failures.wait(address)
        if wait > 0:
            raise Refused(429, "too many wrong keys came from your address", (), _retry_after(wait))
        caller = await self._owner_of(text)
        if caller is None:
            self._note_failure(text, address)
            raise Refused(401, "this key opens nothing here", (), {hdrs.WWW_AUTHENTICATE: "Bearer"})
        return caller

    async def _owner_of(self, text: str) -> Caller | None:
        if len(text) > LONGEST_KEY:
            return None
        try:
            for ring in self.rings:
                if key := await ring.verify(text):
                    return Caller(key.owner, key.scopes)
        except DatabaseError as error:
            LOGGER.error("no key can be looked up: %s", error)
            raise Refused(503, "keys cannot be looked up at the moment; try again in a while") from error
        return None

    def _note_failure(self, text: str, address: str) -> None:
        digest = sha256(text.encode(errors="surrogatepass")).digest()
        if self._wrong.get(address) == digest:
            return
        if len(self._wrong) > 10_000:
            self._wrong.clear()
        self._wrong[address] = digest
        # Many that came at once were all let through to be looked at: each counts.
        self.failures.charge(address)
        LOGGER.warning("a wrong key from %s", address)

    def _count(self, request: web.Request, caller: Caller) -> None:
        if self.requests is None:
            return
        wait = self.requests.take((caller.owner, address_of(request)))
        if wait > 0:
            raise Refused(429, "too many requests", (), _retry_after(wait))


def said_key(request: web.Request, key_in_url: bool) -> str | None:
    """The key that a request says itself; a browser adds none of these unasked."""
    scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return request.headers.get(KEY_HEADER) or (request.query.get(KEY_PARAMETER) if key_in_url else None) or None


def _key_of(request: web.Request, key_in_url: bool) -> str | None:
    return said_key(request, key_in_url) or request.cookies.get(COOKIE)


def address_of(request: web.BaseRequest) -> str:
    """Where a request comes from. Of the newer addresses one has as many as one likes below the first half."""
    remote = request.remote or ""
    try:
        address = ipaddress.ip_address(remote.partition("%")[0])
    except ValueError:
        return remote
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


def _without_key(request: web.Request) -> Exception:
    if request.method == "GET" and "text/html" in request.headers.get(hdrs.ACCEPT, ""):
        return web.HTTPSeeOther(f"{LOGIN}?next={quote(request.raw_path, safe='')}")
    advice = f"send it as {KEY_HEADER} or as Authorization: Bearer, or log in at {LOGIN}"
    return Refused(401, f"this server asks for a key; {advice}", (), {hdrs.WWW_AUTHENTICATE: "Bearer"})


def _retry_after(seconds: float) -> dict[str, str]:
    return {hdrs.RETRY_AFTER: str(int(seconds) + 1)}
