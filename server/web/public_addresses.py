"""Addresses that a stranger may have this server talk to: those of the Internet, and none of the networks around it.

What a name leads to is judged when the connection is made, and the connection goes to the address that was judged: a
name that leads elsewhere a moment later (DNS rebinding) is of no use.
"""

import ipaddress
import socket
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver

OPTION = "--allow-private-webhooks"
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class PrivateAddress(OSError):
    """A name or address leads into a private network."""

    def __init__(self, host: str) -> None:
        self.host = host
        super().__init__(f"{host} is in a private network; to let webhooks go there, start the server with {OPTION}")


def is_public(text: str) -> bool:
    """Whether an address belongs to the Internet at large."""
    try:
        return _is_public(ipaddress.ip_address(text))
    except ValueError:
        return False


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast
    if address.ipv4_mapped:
        return _is_public(address.ipv4_mapped)
    if address in _NAT64:
        return _is_public(ipaddress.IPv4Address(address.packed[-4:]))
    # These lead, by way of somebody's gateway, to an address of the older kind, whichever it is.
    tunnelled = address.sixtofour is not None or address.teredo is not None
    return address.is_global and not address.is_multicast and not tunnelled


def refuse_private(url: str) -> None:
    """Refuse a URL whose host is no public one by its very name. Raises PrivateAddress; looks nothing up."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
            raise PrivateAddress(host) from None
        return
    if not _is_public(address):
        raise PrivateAddress(host)


class PublicResolver(AbstractResolver):
    """Finds the public addresses of a name, and no others."""

    def __init__(self) -> None:
        self._all = DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses. Raises PrivateAddress when all of them are others, or another OSError."""
        found = await self._all.resolve(host, port, family)
        public = [each for each in found if is_public(each["host"])]
        if found and not public:
            raise PrivateAddress(host)
        return public

    async def close(self) -> None:
        """Let go of what it holds."""
        await self._all.close()
