"""`/jobs`: pages of jobs, one job with everything, and what can be done with it."""

import asyncio
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import BaseModel, Field

from server.database.event_log import MOST_PER_PAGE
from server.database.jobs import State, is_job_id
from server.database.paging import MOST_OFFSET, JobFilter, Sort
from server.web.access import Caller
from server.web.answers import json_answer, json_bytes
from server.web.desk import Desk, telling
from server.web.endpoint import Gives, get, post
from server.web.job_forms import STATES, job_details, job_entry, number
from server.web.problems import Refused
from server.web.requests import Cancelling, Json
from server.web.trace import trace_of

SORTS: dict[str, Sort] = {"created_at": "created", "execution_duration": "duration"}
JsonAnswer = Annotated[web.Response, Gives("application/json")]


class JobsQuery(BaseModel):
    """Which jobs, and in which order."""

    status: Annotated[str | None, Field(description="Comma separated; all if left out.")] = None
    workflow_id: str | None = None
    search: Annotated[str | None, Field(description="Words that occur in a title, a text or the id.")] = None
    sort_by: Literal["created_at", "execution_duration"] = "created_at"
    sort_order: Literal["asc", "desc"] = "desc"
    limit: Annotated[int, Field(gt=0, description="At most 1,000.")] = 100
    offset: Annotated[int, Field(ge=0, le=MOST_OFFSET)] = 0
    after: Annotated[str | None, Field(description="`next` of the page before; quicker than an offset.")] = None


class EventsQuery(BaseModel):
    """Which events of a job."""

    after: Annotated[int, Field(ge=0, lt=2**63, description="The number of the last event that is known.")] = 0
    limit: Annotated[int, Field(ge=1, le=MOST_PER_PAGE)] = MOST_PER_PAGE


@telling
async def jobs(desk: Desk, caller: Caller, query: JobsQuery) -> Json:
    """A page of jobs."""
    states: list[State] | None = (
        None if query.status is None else [_state(name.strip()) for name in query.status.split(",")]
    )
    which = JobFilter(owner=caller.owner, states=states, workflow_id=query.workflow_id, search=query.search)
    limit = min(query.limit, 1000)
    page = await desk.history.page(
        which,
        sort=SORTS[query.sort_by],
        descending=query.sort_order == "desc",
        limit=limit,
        offset=query.offset,
        after=query.after,
    )
    total = None if which.words else await desk.history.count(which)
    more: Json = {"offset": query.offset, "limit": limit, "total": total, "has_more": page.next is not None}
    return {"jobs": [job_entry(job) for job in page.jobs], "pagination": more | {"next": page.next}}


@telling
async def job(desk: Desk, caller: Caller, job_id: str) -> JsonAnswer:
    """One job with its workflow, its outputs and how long its nodes took."""
    found = await desk.history.job(job_id, caller.owner)
    hook = await desk.webhooks.status(job_id, caller.owner)
    body = await asyncio.to_thread(lambda: json_bytes(job_details(found, hook)))
    return web.Response(body=body, content_type="application/json")


@telling
async def trace(desk: Desk, caller: Caller, job_id: str) -> JsonAnswer:
    """What took how long in a job, as a trace for Perfetto (ui.perfetto.dev) or Chrome: waiting, attempts, nodes.

    Of a job that runs, what is over of it up to now.
    """
    found = await desk.history.job(job_id, caller.owner)
    running = desk.dispatcher.running.get(job_id)
    timings = found.timings if running is None else tuple(running.diary.timings)
    body = await asyncio.to_thread(lambda: json_bytes(trace_of(found, timings, desk.queue.now())))
    return web.Response(body=body, content_type="application/json")


@telling
async def cancel(desk: Desk, caller: Caller, job_id: str) -> Json:
    """Stop a job, whether it waits or runs. Can be asked again."""
    answers = await desk.cancel([job_id], caller.owner)
    return {"cancelled": any(answer in ("cancelled", "asked") for answer in answers.values())}


@telling
async def cancel_many(desk: Desk, caller: Caller, body: Cancelling) -> JsonAnswer:
    """Stop jobs, whether they wait or run."""
    invalid = [job_id for job_id in body.job_ids if not is_job_id(job_id)]
    if invalid:
        sentence = "a job's id is a UUID in lower case with hyphens"
        return json_answer({"error": sentence, "invalid_ids": invalid[:100]}, 400)
    answers = await desk.cancel(body.job_ids, caller.owner)
    return json_answer({"cancelled": any(answer in ("cancelled", "asked") for answer in answers.values())})


@telling
async def retry(desk: Desk, caller: Caller, job_id: str) -> Json:
    """Put a job that failed or was cancelled into the queue again."""
    accepted = await desk.queue.retry(job_id, caller.owner, most_unfinished=desk.most_unfinished)
    desk.hub.queue_changed()
    desk.dispatcher.wake()
    return {"prompt_id": accepted.id, "number": number(accepted.number)}


@telling
async def events(desk: Desk, caller: Caller, query: EventsQuery, job_id: str) -> Json:
    """What was told of a job, in order. Of what is told again and again, only the last is kept."""
    await desk.history.job(job_id, caller.owner)
    await desk.journal.write()
    page = await desk.events.read(job_id=job_id, owner=caller.owner, after=query.after, limit=query.limit)
    told: list[Any] = [
        {
            "number": event.number,
            "type": event.kind,
            "data": event.data.value(),
            "time": round(event.time.timestamp() * 1000),
        }
        for event in page.events
    ]
    return {"events": told, "last": page.last, "more": page.more, "complete": page.complete}


def _state(status: str) -> State:
    state = STATES.get(status)
    if state is None:
        raise Refused(400, f"there is no status {status!r}; there are {', '.join(STATES)}")
    return state


ROUTES = (
    get("/jobs", jobs),
    post("/jobs/cancel", cancel_many),
    get("/jobs/{job_id}", job),
    post("/jobs/{job_id}/cancel", cancel),
    post("/jobs/{job_id}/retry", retry),
    get("/jobs/{job_id}/events", events),
    get("/jobs/{job_id}/trace", trace),
)
