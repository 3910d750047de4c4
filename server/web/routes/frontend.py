"""`/` and below, where a graph editor is served: its files, and what this server has it load."""

import asyncio
from functools import cache
from importlib.resources import files
from typing import Annotated, Any

from aiohttp import hdrs, web

from server.web.access import Caller
from server.web.answers import FileAnswer
from server.web.endpoint import Gives, get
from server.web.files.names import found
from server.web.frontend import INDEX, Frontend
from server.web.site import Site

STYLE = "user.css"
SCRIPT = "/extensions/latentloom/editor.js"

# The editor brings its own styles and scripts. It asks nobody but this server: neither those who made it, nor places
# that models could be fetched from, nor anyone whom a workflow names.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; frame-ancestors 'self'; base-uri 'self'; form-action 'self'"
)


@cache
def _script() -> bytes:
    return files("server.web").joinpath("editor.js").read_bytes()


async def index(frontend: Frontend) -> Annotated[web.StreamResponse, Gives("text/html")]:
    """The editor."""
    answer = await asyncio.to_thread(frontend.file, INDEX)
    answer.headers.update({hdrs.CACHE_CONTROL: "no-cache", "Content-Security-Policy": POLICY})
    return answer


async def script() -> Annotated[web.Response, Gives("text/javascript")]:
    """What the editor is to load beside its own scripts."""
    return web.Response(body=_script(), content_type="text/javascript", charset="utf-8")


async def no_templates() -> list[Any]:
    """None: the templates are this server's own, which `/workflow_templates` lists."""
    return []


async def no_logos() -> dict[str, Any]:
    """None: no maker of models is advertised here."""
    return {}


async def no_style() -> Annotated[web.Response, Gives("text/css")]:
    """Empty: the editor asks for it, and has none."""
    return web.Response(content_type="text/css")


async def own_style(site: Site, caller: Caller) -> Annotated[web.StreamResponse, Gives("text/css")]:
    """How the caller wants the editor to look, if they have put a `user.css` among their files."""
    path = await asyncio.to_thread(found, (site.folders.of(caller.owner).user,), STYLE)
    return await no_style() if path is None else FileAnswer(path, headers={hdrs.CONTENT_TYPE: "text/css"})


async def part(frontend: Frontend, file: str) -> Annotated[web.StreamResponse, Gives("*/*")]:
    """A file of the editor."""
    return await asyncio.to_thread(frontend.file, file)


ROUTES = (
    get("/", index, twin=False, hidden=True),
    get(SCRIPT, script, twin=False, hidden=True),
    get("/templates/index.json", no_templates, twin=False, hidden=True),
    get("/templates/index_logo.json", no_logos, twin=False, hidden=True),
    get(f"/{STYLE}", no_style, twin=False, hidden=True),
    get(f"/userdata/{STYLE}", own_style, hidden=True),
    get("/{file:.+}", part, twin=False, hidden=True),
)
