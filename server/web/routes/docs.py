"""`/openapi.json` and `/docs`: what this site can be asked for, for programs and for people."""

import asyncio
from typing import Annotated, Any

from aiohttp import web

from server.web.docs_page import docs_page
from server.web.endpoint import Gives, get
from server.web.openapi import openapi


class Documentation:
    """Describes a site when that is first asked for: its routes stay what they are. One for each site."""

    def __init__(self) -> None:
        self._document: dict[str, Any] | None = None

    async def of(self, application: web.Application) -> dict[str, Any]:
        """The document."""
        if self._document is None:
            self._document = await asyncio.to_thread(openapi, application)
        return self._document


async def show_document(request: web.Request, documentation: Documentation) -> dict[str, Any]:
    """What the site can be asked for, in OpenAPI 3.1."""
    return await documentation.of(request.app)


async def show_page(request: web.Request, documentation: Documentation) -> Annotated[web.Response, Gives("text/html")]:
    """This page: what the site can be asked for."""
    return docs_page(await documentation.of(request.app))


ROUTES = (get("/openapi.json", show_document, twin=False), get("/docs", show_page, twin=False))
