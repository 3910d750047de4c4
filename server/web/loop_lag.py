"""How late the event loop comes: what holds it up holds everybody up."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

from aiohttp import web

from server.web.metrics import METRICS, Metrics

TICK_SECONDS = 0.01


async def watch_lag(application: web.Application) -> AsyncGenerator[None]:
    """Measure for as long as a site is up. For `cleanup_ctx`."""
    watching = asyncio.create_task(_watch(application[METRICS]))
    yield
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching


async def _watch(metrics: Metrics) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + TICK_SECONDS
        await asyncio.sleep(TICK_SECONDS)
        metrics.lagged(max(0.0, loop.time() - due))
