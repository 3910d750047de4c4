"""Which names this server answers to, and which pages of other sites may use it.

A page of any site can make a browser send requests here. Two things keep it from doing harm: the browser says where the
page comes from (`Origin`, `Sec-Fetch-Site`), and a site that pretends that its name belongs to this machine (DNS
rebinding) gives itself away by that name (`Host`).
"""

import ipaddress
import re
import socket
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from server.web.answers import Headers
from server.web.problems import Refused

METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
HEADERS = "Content-Type, Authorization, X-API-Key, Comfy-User"
ANY = "*"
_NAME = re.compile(r"[a-z0-9._:%-]+")
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


@dataclass(frozen=True)
class Origins:
    """Whom this server believes to be itself, and who else may come in.

    Args:
        names: names that this server has beside its addresses, `localhost` and the machine's own name; `*`: any.
        allowed: origins (`https://app.example`) of other sites whose pages may use this server; `*`: any.
    """

    names: frozenset[str] = frozenset()
    allowed: frozenset[str] = frozenset()

    @cached_property
    def _own_names(self) -> frozenset[str]:
        machine = socket.gethostname().lower().rstrip(".")
        short = machine.partition(".")[0]
        return frozenset({"localhost", machine, short, f"{short}.local"} | {name.lower() for name in self.names})

    def answers_to(self, host: str) -> bool:
        """Whether a `Host` header names this server."""
        name = _split(host)[0]
        if name is None:
            return False
        # An address is nothing that another site could have made point here.
        return ANY in self.names or name in self._own_names or name.endswith(".localhost") or _is_address(name)

    def admits(self, origin: str, host: str) -> bool:
        """Whether pages of an origin may use what is found under a `Host`."""
        return ANY in self.allowed or origin.lower() in self.allowed or _is_same(origin, host)

    def headers(self, origin: str | None) -> Headers:
        """What a browser is told of who may read an answer (CORS)."""
        if not self.allowed:
            return {}
        common: dict[str, str] = {
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: METHODS,
            hdrs.ACCESS_CONTROL_ALLOW_HEADERS: HEADERS,
        }
        if ANY in self.allowed:
            # Without credentials: a browser refuses both together, and a cookie is nothing for everybody to use.
            return {**common, hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: ANY}
        if origin is None or origin.lower() not in self.allowed:
            return {hdrs.VARY: hdrs.ORIGIN}
        return {
            **common,
            hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: origin,
            hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS: "true",
            hdrs.VARY: hdrs.ORIGIN,
        }


def _split(authority: str) -> tuple[str | None, int | None]:
    """Name and port of `name:port`; no name if it is nothing of the kind."""
    try:
        parts = urlsplit(f"//{authority}")
        port = parts.port
    except ValueError:
        return None, None
    if "@" in authority or not parts.hostname or not _NAME.fullmatch(parts.hostname) or parts.netloc != authority:
        return None, None
    return parts.hostname.rstrip("."), port


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_same(origin: str, host: str) -> bool:
    scheme, separator, authority = origin.lower().partition("://")
    # Which of both schemes was used is known to a proxy in front of this server alone.
    default = _DEFAULT_PORTS.get(scheme)
    if not separator or default is None:
        return False
    name, port = _split(authority)
    own_name, own_port = _split(host.lower())
    return name is not None and (name, port or default) == (own_name, own_port or default)


def is_origin(text: str) -> bool:
    """Whether a text looks like an origin: `https://app.example`."""
    scheme, separator, authority = text.partition("://")
    return bool(separator) and scheme.isalpha() and _split(authority)[0] is not None


def refuse_strangers(origins: Origins, request: web.Request, has_key: bool) -> None:
    """Refuse requests that another site's page, or another site's name, has brought here.

    Args:
        has_key: whether the request says its key itself. A browser adds a cookie by itself, but never that.
    """
    host = request.headers.get(hdrs.HOST, "")
    if not origins.answers_to(host):
        name = _split(host)[0] or host
        raise Refused(403, f"this server does not go by the name {name!r}; start it with --allowed-host {name}")
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is not None:
        if not origins.admits(origin, host):
            advice = f"; to let them, start the server with --enable-cors-header {origin}"
            raise Refused(403, f"pages of {origin} may not use this server{advice if '://' in origin else ''}")
        return
    # Pictures, scripts and forms of a page come without an origin, but newer browsers say this.
    cross = request.headers.get("Sec-Fetch-Site") == "cross-site"
    if cross and not has_key and not origins.allowed and request.headers.get("Sec-Fetch-Mode") != "navigate":
        raise Refused(403, "pages of other sites may not use this server")
