"""`/object_info`: what nodes there are, as editors ask for it at every start; encoded once, and sent once."""

import asyncio
import gzip
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any

from aiohttp import hdrs, web

from server.web.access import Caller
from server.web.answers import json_bytes, kept_answer
from server.web.compression import takes_gzip
from server.web.endpoint import Gives, get
from server.web.site import Json, Site


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A description of all nodes, as it is sent."""

    described: Json
    plain: bytes
    packed: bytes
    etag: str

    @staticmethod
    def of(described: Json) -> "_Encoded":
        plain = json_bytes(described)
        return _Encoded(described, plain, gzip.compress(plain, 6, mtime=0), sha256(plain).hexdigest()[:32])


class EncodedNodes:
    """Keeps the last description of all nodes as it was sent. One for each site."""

    def __init__(self) -> None:
        self._last: _Encoded | None = None

    async def of(self, described: Json) -> _Encoded:
        """A description as it is sent; encoded only if it is another one than last time."""
        if self._last is None or self._last.described is not described:
            self._last = await asyncio.to_thread(_Encoded.of, described)
        return self._last


async def all_nodes(
    request: web.Request, site: Site, caller: Caller, nodes: EncodedNodes
) -> Annotated[web.Response, Gives("application/json")]:
    """Every node: what it takes and gives, in ComfyUI's form. Can be asked for again with its ETag."""
    encoded = await nodes.of(await site.describe_to(await site.describe_nodes(), caller.owner))
    headers: dict[str, str] = {hdrs.CONTENT_TYPE: "application/json", hdrs.VARY: hdrs.ACCEPT_ENCODING}
    if not takes_gzip(request):
        return kept_answer(request, encoded.plain, encoded.etag, headers)
    return kept_answer(request, encoded.packed, encoded.etag, {**headers, hdrs.CONTENT_ENCODING: "gzip"})


async def one_node(site: Site, caller: Caller, node_class: str) -> dict[str, Any]:
    """One node, by its class; nothing if there is none of this class."""
    nodes = await site.describe_nodes()
    entry = {node_class: nodes[node_class]} if node_class in nodes else {}
    return dict(await site.describe_to(entry, caller.owner))


ROUTES = (get("/object_info", all_nodes), get("/object_info/{node_class:[^/]+}", one_node))
