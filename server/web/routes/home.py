"""`/` and `/overview`: this server's own page. Where a graph editor is served, it is at `/overview` alone."""

from functools import cache
from importlib.resources import files
from typing import Annotated

from aiohttp import hdrs, web

from server.web.endpoint import Gives, get

# The page brings its own style and script, and asks nobody but this server.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src 'self' blob: data:; "
    "connect-src 'self' ws: wss:; media-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)


@cache
def _page() -> bytes:
    return files("server.web").joinpath("page.html").read_bytes()


async def home() -> Annotated[web.Response, Gives("text/html")]:
    """The queue with what happens in it, what was made, and how to connect."""
    headers = {hdrs.CACHE_CONTROL: "no-cache", "Content-Security-Policy": POLICY}
    return web.Response(body=_page(), content_type="text/html", charset="utf-8", headers=headers)


OVERVIEW = (get("/overview", home, twin=False, hidden=True),)
ROUTES = (get("/", home, twin=False, hidden=True), *OVERVIEW)
