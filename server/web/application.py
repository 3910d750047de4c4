"""Put a site together: its routes, each also below `/api`, behind what every request has to pass."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from typing import Any

from aiohttp import web

from server.web.endpoint import endpoint_of
from server.web.files.staging import remove_stale
from server.web.loop_lag import watch_lag
from server.web.metrics import METRICS, Metrics
from server.web.middleware import MIDDLEWARES, add_headers
from server.web.parameters import SERVICES, STAGING
from server.web.routes import ROUTES
from server.web.routes.docs import Documentation
from server.web.routes.node_info import EncodedNodes
from server.web.routes.templates import Templates
from server.web.site import SITE, Site


def make_application(
    site: Site, routes: Iterable[web.RouteDef] = (), services: Mapping[type, Any] | None = None
) -> web.Application:
    """A site that can be served.

    Args:
        routes: what it has beside the routes in `server.web.routes`.
        services: what their handlers take, by type.

    Raises:
        TypeError: a handler takes something that nobody gives, or a route is declared twice.
    """
    application = web.Application(middlewares=MIDDLEWARES, client_max_size=site.limits.upload_bytes)
    application[SITE] = site
    own = {Documentation: Documentation(), EncodedNodes: EncodedNodes(), Templates: Templates(), Metrics: Metrics()}
    application[SERVICES] = {**own, **(services or {})}
    application[METRICS] = application[SERVICES][Metrics]
    declared = (*routes, *ROUTES)
    _check(declared, application[SERVICES])
    application.add_routes([*(_below_api(route) for route in declared if _has_twin(route)), *declared])
    application.on_response_prepare.append(add_headers)
    application.cleanup_ctx.extend((_clean_staging, watch_lag))
    return application


def _check(routes: Sequence[web.RouteDef], services: Mapping[type, Any]) -> None:
    seen = set[tuple[str, str]]()
    for route in routes:
        place = (route.method, route.path)
        if place in seen:
            raise TypeError(f"{route.method} {route.path} is declared twice")
        seen.add(place)
        endpoint = endpoint_of(route.handler)
        missing = endpoint.services - services.keys() if endpoint else ()
        if missing:
            names = ", ".join(sorted(each.__qualname__ for each in missing))
            raise TypeError(f"{route.method} {route.path} takes what nobody gives: {names}")


def _has_twin(route: web.RouteDef) -> bool:
    endpoint = endpoint_of(route.handler)
    return endpoint is None or endpoint.twin


def _below_api(route: web.RouteDef) -> web.RouteDef:
    return web.RouteDef(route.method, f"/api{route.path}", route.handler, route.kwargs)


async def _clean_staging(application: web.Application) -> AsyncGenerator[None]:
    await asyncio.to_thread(remove_stale, application[SITE].folders.temp / STAGING)
    yield
