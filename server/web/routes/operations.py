"""`/health`, `/ready` and `/metrics`: for those who keep this server running."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal

from aiohttp import web
from pydantic import BaseModel, Field

from graph.folders import Folders
from graph.store_folder import StoreFolder
from graph.store_index import StoreIndex
from server.database.errors import DatabaseError
from server.web.answers import json_answer
from server.web.desk import Desk, telling
from server.web.endpoint import Gives, get
from server.web.metrics import MEDIA_TYPE, Metrics, Standing

PATIENCE = 2.0
"""Seconds after which a database counts as one that does not answer."""


class Health(BaseModel):
    """That the process is alive."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Whether this server takes jobs."""

    ready: bool
    reasons: Annotated[list[str], Field(description="Why it does not.")]


async def health() -> Health:
    """Whether the process is alive. It asks nobody else; whether jobs are taken is said by `/ready`."""
    return Health()


async def ready(desk: Desk) -> Annotated[web.Response, Gives("application/json")]:
    """Whether jobs are taken: the database answers and the nodes are known. If not, 503, and the reasons."""
    reasons: list[str] = []
    if desk.dispatcher.is_stopping:
        reasons.append("the server is stopping")
    if not desk.library.is_known:
        reasons.append("the nodes are not loaded")
    try:
        async with asyncio.timeout(PATIENCE):
            mode = await desk.queue.mode()
    except (DatabaseError, TimeoutError):
        reasons.append("the database does not answer")
    else:
        if mode == "draining":
            reasons.append("the queue is being drained and takes no jobs; resume it with POST /queue/resume")
    readiness = Readiness(ready=not reasons, reasons=reasons)
    return json_answer(readiness, 200 if readiness.ready else 503, {"Cache-Control": "no-store"})


@telling
async def metrics(desk: Desk, metrics: Metrics) -> Annotated[web.Response, Gives("text/plain")]:
    """What this server counts, in Prometheus' text format.

    Numbers of all owners' jobs together, and no names; a key needs the scope `read`.
    """
    worker = desk.pool.options.worker
    standing = Standing(
        waiting=await desk.history.waiting(),
        jobs=await desk.history.counts(),
        pool=desk.pool.status(),
        store=await asyncio.to_thread(_stored, worker.data) if worker.store == "disk" else None,
        listeners=len(desk.hub),
    )
    text = await asyncio.to_thread(metrics.text, standing)
    return web.Response(body=text, headers={"Content-Type": MEDIA_TYPE, "Cache-Control": "no-store"})


def _stored(data: Path) -> tuple[int, int] | None:
    """Entries and bytes of the disk store; None: its index does not answer."""
    path = StoreFolder(Folders.below(data).store).index
    if not path.exists():
        return 0, 0
    try:
        with closing(StoreIndex(path)) as index:
            totals = index.totals()
    except (sqlite3.Error, OSError):
        return None
    return totals.entries, totals.bytes


ROUTES = (
    get("/health", health, need="nothing"),
    get("/ready", ready, need="nothing"),
    get("/metrics", metrics),
)
