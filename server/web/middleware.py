"""What every request passes on its way in, and every answer on its way out.

From the outside in: requests are counted; answers are compressed; problems become JSON; strangers' pages are refused;
keys are looked at. Headers are added last of all, when an answer is about to be sent, so that no answer lacks them.
"""

import re
from collections.abc import Sequence

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from server.web.access import CALLER, KEY_PARAMETER
from server.web.compression import compressed
from server.web.endpoint import endpoint_of
from server.web.metrics import count_requests
from server.web.origins import refuse_strangers
from server.web.problems import BEGUN, SHAPE, tell_problems
from server.web.site import SITE

_NO_CACHE = re.compile(r"(.*\.(js|css)|(.*/)?index[^/]*\.json)", re.IGNORECASE)
_PICTURE = re.compile(r".*\.(jpe?g|png|ppm|bmp|pgm|tiff?|webp)", re.IGNORECASE)
_HOUR, _DAY = 3600, 86400


@web.middleware
async def compress(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Send text compressed, if the site is to."""
    answer = await handler(request)
    return await compressed(request, answer) if request.app[SITE].compress else answer


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what another site has brought here, and who has no key."""
    site = request.app[SITE]
    endpoint = endpoint_of(request.match_info.handler)
    if endpoint:
        request[SHAPE] = endpoint.shape
    key_in_url = endpoint is not None and endpoint.key_in_url
    refuse_strangers(site.origins, request, has_key=key_in_url and KEY_PARAMETER in request.query)
    if request.method == hdrs.METH_OPTIONS:
        # Asked by a browser before the request itself, and without any key; what may be asked for is in the headers.
        return web.Response()
    need = endpoint.need if endpoint else "read" if request.method in ("GET", "HEAD") else "submit"
    request[CALLER] = await site.door.admit(request, need, key_in_url)
    return await handler(request)


MIDDLEWARES: Sequence[Middleware] = (count_requests, compress, tell_problems, guard)


async def add_headers(request: web.Request, answer: web.StreamResponse) -> None:
    """What is true of every answer: for how long it may be kept, and what a browser must not do with it."""
    request[BEGUN] = True
    site = request.app[SITE]
    headers = answer.headers
    headers[hdrs.SERVER] = "Latentloom"
    if hdrs.CACHE_CONTROL not in headers:
        is_open = site.door.is_open
        keep = cache_control(request.path, answer.status, shared=is_open)
        if keep or not is_open:
            headers[hdrs.CACHE_CONTROL] = keep or "private"
    origins = site.origins.headers(request.headers.get(hdrs.ORIGIN))
    for name, value in origins.items():
        headers.add(name, value)
    headers["X-Content-Type-Options"] = "nosniff"
    headers.setdefault("Referrer-Policy", "same-origin")
    headers.setdefault("Content-Security-Policy", "frame-ancestors 'self'")
    headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
    headers.setdefault("Cross-Origin-Resource-Policy", "cross-origin" if site.origins.allowed else "same-origin")


def cache_control(path: str, status: int, shared: bool) -> str | None:
    """For how long an answer may be kept, going by the end of its path, as the protocol has it.

    Args:
        shared: whether everybody may see it, so that caches on the way may keep it too.
    """
    if _NO_CACHE.fullmatch(path):
        return "no-cache"
    if not _PICTURE.fullmatch(path):
        return None
    whose = "public" if shared else "private"
    if status == 404:
        return f"{whose}, max-age={_HOUR}"
    if 200 <= status <= 206 or status in (301, 308):
        return f"{whose}, max-age={_DAY}"
    return "no-cache" if status in (302, 303, 307) else None
