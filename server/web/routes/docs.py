"""`/openapi.json` and `/docs`: what this site can be asked for, for programs and for people."""

from typing import Annotated, Any

from aiohttp import web

from server.web.docs_page import docs_page
from server.web.endpoint import Gives, get
from server.web.openapi import openapi


async def show_document(request: web.Request) -> dict[str, Any]:
    """The site in OpenAPI 3.1."""
    return openapi(request.app)


async def show_page(request: web.Request) -> Annotated[web.Response, Gives("text/html")]:
    """The same for people."""
    return docs_page(openapi(request.app))


ROUTES = (get("/openapi.json", show_document, twin=False), get("/docs", show_page, twin=False))
