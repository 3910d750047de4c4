"""`/login`: a page that takes a key and leaves it with the browser as a cookie, and `/logout`, which takes it back."""

from html import escape
from typing import Annotated
from urllib.parse import parse_qs, urlsplit

from aiohttp import hdrs, web
from pydantic import BaseModel, Field

from server.web.access import COOKIE, LOGIN, address_of
from server.web.bodies import Arrival
from server.web.endpoint import Gives, get, post
from server.web.pages import page
from server.web.problems import Refused
from server.web.site import Site

COOKIE_SECONDS = 30 * 24 * 3600
LARGEST_FORM = 16 * 1024
HOME = "/"


class LoginQuery(BaseModel):
    """Where to go afterwards."""

    next: Annotated[str, Field(description="A path of this site.")] = HOME


async def show_login(site: Site, query: LoginQuery) -> Annotated[web.StreamResponse, Gives("text/html")]:
    """A page that asks for a key."""
    return _to(query.next) if site.door.is_open else _form(query.next)


async def log_in(
    request: web.Request, site: Site, query: LoginQuery
) -> Annotated[web.StreamResponse, Gives(status=303, refusals=("text/html",))]:
    """Take a key, and have the browser send it from now on."""
    if site.door.is_open:
        return _to(query.next)
    body = await Arrival(request, LARGEST_FORM, site.limits.patience).whole()
    said = parse_qs(body.decode(errors="replace"), max_num_fields=None)
    key = said.get("key", [""])[0].strip()
    destination = said.get("next", [query.next])[0]
    if not key:
        return _form(destination, "Type the key in.", 400)
    try:
        await site.door.recognise(key, address_of(request))
    except Refused as refused:
        answer = _form(destination, f"{refused.message[:1].upper()}{refused.message[1:]}.", refused.status)
        answer.headers.update(refused.headers)
        return answer
    answer = _to(destination)
    answer.set_cookie(
        COOKIE, key, max_age=COOKIE_SECONDS, httponly=True, samesite="Lax", secure=request.secure, path="/"
    )
    return answer


async def log_out() -> Annotated[web.StreamResponse, Gives(status=303)]:
    """Have the browser forget the key."""
    answer = _to(LOGIN)
    answer.del_cookie(COOKIE, path="/")
    return answer


def _to(destination: str) -> web.Response:
    """Go there, if it is on this site."""
    parts = urlsplit(destination.replace("\\", "/"))
    is_here = not parts.scheme and not parts.netloc and parts.path.startswith("/") and not parts.path.startswith("//")
    safe = destination if is_here and destination.isprintable() and destination.isascii() else HOME
    return web.Response(status=303, headers={hdrs.LOCATION: safe, hdrs.CACHE_CONTROL: "no-store"})


def _form(destination: str, wrong: str = "", status: int = 200) -> web.Response:
    told = f'<p class="wrong" role="alert">{escape(wrong)}</p>' if wrong else ""
    body = (
        '<h1>Latentloom</h1><p class="soft">This server asks for a key. Whoever started it has one, and can '
        "make others with <code>latentloom keys add</code>.</p>"
        f'{told}<form method="post" action="{LOGIN}"><label for="key">Key</label>'
        '<input id="key" name="key" type="password" autocomplete="current-password" required autofocus>'
        f'<input type="hidden" name="next" value="{escape(destination)}"><button>Log in</button></form>'
    )
    answer = page("Latentloom: log in", body, status)
    answer.headers[hdrs.CACHE_CONTROL] = "no-store"
    return answer


ROUTES = (
    get(LOGIN, show_login, need="nothing", twin=False),
    post(LOGIN, log_in, need="nothing", twin=False),
    post("/logout", log_out, need="nothing", twin=False),
)
