"""How late the event loop comes: what holds it up holds everybody up."""

import asyncio
from collections.abc import AsyncGenerator

from aiohttp import web

from server.web.metrics import METRICS, Metrics

TICK_SECONDS = 0.02


async def watch_lag(application: web.Application) -> AsyncGenerator[None]:
    """Measure for as long as a site is up. For `cleanup_ctx`."""
    watch = _Watch(application[METRICS])
    yield
    watch.close()


class _Watch:
    """Looks at the clock again and again, as cheaply as that can be done."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._wait()

    def close(self) -> None:
        self._next.cancel()

    def _wait(self) -> None:
        self._due = self._loop.time() + TICK_SECONDS
        self._next = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        self._metrics.lagged(max(0.0, self._loop.time() - self._due))
        self._wait()
