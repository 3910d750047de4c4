"""`/queue`, `/history`, `/interrupt` and `/free`: what waits, what runs, what is over."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, Field

from server.database.job_queue import Mode
from server.database.jobs import ENDINGS, Job, State
from server.database.paging import MOST_OFFSET, JobFilter, Sort
from server.web.access import Caller
from server.web.desk import Desk, telling
from server.web.endpoint import Gives, get, post
from server.web.job_forms import history_entry, queue_item
from server.web.requests import Freeing, Interruption, QueueChange

MOST_LISTED = 1000
USUALLY_LISTED = 200
LOADED_AT_ONCE = 25
MOST_BYTES = 64 * 1024 * 1024
"""Of an answer; jobs beyond that are left out."""

JsonAnswer = Annotated[web.Response, Gives("application/json")]


class QueueQuery(BaseModel):
    """How much of the queue is wanted."""

    max_items: Annotated[int, Field(ge=1, le=MOST_LISTED, description="Jobs that wait, the most urgent first.")] = 500


class HistoryQuery(BaseModel):
    """Which part of the history, counted from the oldest job; without an offset, the newest jobs."""

    max_items: Annotated[int | None, Field(description="At most 1,000; 200 if left out.")] = None
    offset: Annotated[int | None, Field(le=MOST_OFFSET, description="Jobs to be left out first.")] = None


class QueueMode(BaseModel):
    """What the queue does: `open`; `paused`: no job is begun; `draining`: no job is taken."""

    mode: Mode


@telling
async def queue(desk: Desk, caller: Caller, query: QueueQuery) -> JsonAnswer:
    """Jobs that run, and jobs that wait, the most urgent first."""
    running = await _items(desk, caller, "running", "created", MOST_LISTED)
    waiting = await _items(desk, caller, "queued", "urgency", query.max_items)
    return _json(f'{{"queue_running":[{",".join(running)}],"queue_pending":[{",".join(waiting)}]}}')


@telling
async def change_queue(desk: Desk, caller: Caller, body: QueueChange) -> None:
    """Take jobs that wait out of the queue: all, or those named."""
    if body.clear:
        await desk.queue.cancel_waiting(caller.owner)
        desk.hub.queue_changed()
    if body.delete:
        # Those that run are not meant; for them there is /interrupt.
        jobs = await desk.history.jobs(body.delete[:MOST_LISTED], caller.owner)
        await desk.cancel([job.id for job in jobs if job.state == "queued"], caller.owner)


@telling
async def history(desk: Desk, caller: Caller, query: HistoryQuery) -> JsonAnswer:
    """Jobs that are over, the oldest first."""
    limit = USUALLY_LISTED if query.max_items is None else max(1, min(query.max_items, MOST_LISTED))
    newest = query.offset is None or query.offset < 0
    page = await desk.history.page(
        JobFilter(owner=caller.owner, states=ENDINGS),
        descending=newest,
        limit=limit,
        offset=0 if newest else query.offset or 0,
    )
    # What was taken out of the queue never came so far.
    ids = [job.id for job in page.jobs if job.started is not None]
    entries = await _texts(desk, caller, ids[::-1] if newest else ids, _named_entry)
    return _json(f"{{{','.join(entries)}}}")


@telling
async def history_of(desk: Desk, caller: Caller, prompt_id: str) -> JsonAnswer:
    """One job that is over; an empty object if there is none."""
    jobs = await desk.history.jobs([prompt_id], caller.owner)
    over = [job for job in jobs if job.state in ENDINGS]
    return _json(f"{{{','.join(await asyncio.to_thread(_each, over, _named_entry))}}}")


@telling
async def change_history(desk: Desk, caller: Caller, body: QueueChange) -> None:
    """Forget jobs that are over: all, or those named."""
    if body.clear:
        await desk.history.clear(caller.owner)
    if body.delete:
        await desk.history.delete(body.delete, caller.owner)


@telling
async def interrupt(desk: Desk, caller: Caller, body: Interruption = Interruption()) -> None:  # noqa: B008  # frozen, and what no body means
    """Stop a job if it is the one that runs; without an id, whatever of the caller's runs."""
    running = desk.running_of(caller.owner)
    meant = [job_id for job_id in running if body.prompt_id in (None, job_id)]
    if meant:
        await desk.cancel(meant, caller.owner)


async def free(desk: Desk, body: Freeing = Freeing()) -> None:  # noqa: B008  # frozen, and what no body means
    """Have workers let go of models and results as soon as they have nothing to do."""
    if body.unload_models or body.free_memory:
        desk.begin(desk.pool.free(models=True, memory=body.free_memory))


@telling
async def mode(desk: Desk) -> QueueMode:
    """What the queue does."""
    return QueueMode(mode=await desk.queue.mode())


@telling
async def pause(desk: Desk) -> QueueMode:
    """Begin no more jobs until it is resumed, also after a restart. Those that run go on."""
    await desk.queue.pause()
    return await mode(desk)


@telling
async def drain(desk: Desk) -> QueueMode:
    """Take no more jobs until it is resumed, also after a restart. Those that wait are run."""
    await desk.queue.drain()
    desk.dispatcher.wake()
    return await mode(desk)


@telling
async def resume(desk: Desk) -> QueueMode:
    """Take jobs and begin them."""
    await desk.queue.resume()
    desk.dispatcher.wake()
    return await mode(desk)


async def _items(desk: Desk, caller: Caller, state: State, sort: Sort, limit: int) -> Sequence[str]:
    which = JobFilter(owner=caller.owner, states=[state])
    page = await desk.history.page(which, sort=sort, descending=False, limit=limit)
    return await _texts(desk, caller, [job.id for job in page.jobs], queue_item)


async def _texts(desk: Desk, caller: Caller, ids: Sequence[str], write: Callable[[Job], str]) -> Sequence[str]:
    texts: list[str] = []
    for start in range(0, len(ids), LOADED_AT_ONCE):
        jobs = await desk.history.jobs(ids[start : start + LOADED_AT_ONCE], caller.owner)
        texts += await asyncio.to_thread(_each, jobs, write)
        if sum(map(len, texts)) > MOST_BYTES:
            break
    return texts


def _each(jobs: Iterable[Job], write: Callable[[Job], str]) -> list[str]:
    return [write(job) for job in jobs]


def _named_entry(job: Job) -> str:
    return f'"{job.id}":{history_entry(job)}'


def _json(text: str) -> web.Response:
    return web.Response(body=text.encode(), content_type="application/json")


ROUTES = (
    get("/queue", queue),
    post("/queue", change_queue),
    get("/queue/mode", mode),
    post("/queue/pause", pause, "admin"),
    post("/queue/drain", drain, "admin"),
    post("/queue/resume", resume, "admin"),
    get("/history", history),
    post("/history", change_history),
    get("/history/{prompt_id}", history_of),
    post("/interrupt", interrupt),
    post("/free", free, "admin"),
)
