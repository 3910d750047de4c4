"""`/prompt`, `/validate` and `/batch`: workflows in, jobs queued, outputs out for those who wait."""

import asyncio
from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, Field

from server.database.errors import DatabaseError
from server.database.jobs import ENDINGS, Job
from server.web.access import Caller
from server.web.answers import json_answer
from server.web.bodies import Arrival
from server.web.desk import Desk, refused, telling
from server.web.endpoint import Gives, get, post
from server.web.hub import status_data
from server.web.intake import NotTaken, batch_of, problems_of, prompt_of
from server.web.job_forms import STATUS, number
from server.web.problems import Refused
from server.web.prompt_errors import refusal
from server.web.requests import Json
from server.web.site import Site
from workflows.pictures import is_picture

LONGEST_WAIT = 3600.0
KINDS = {401: "unauthorized", 403: "forbidden", 409: "duplicate_prompt_id", 413: "too_large", 429: "too_many_jobs"}


class PromptQuery(BaseModel):
    """How to answer, and for pictures, what JSON would say beside the workflow."""

    wait: Annotated[float, Field(ge=0, le=LONGEST_WAIT, description="Seconds to wait for the outputs.")] = 0
    client_id: str | None = None
    prompt_id: str | None = None


def prompt_shape(problem: Refused) -> Any:
    """A refusal in the shape of `/prompt`."""
    kind = KINDS.get(problem.status, "invalid_request" if problem.status < 500 else "unavailable")
    return refusal(kind, problem.message)


@telling
async def remaining(desk: Desk, caller: Caller) -> Json:
    """How many jobs wait and run."""
    counts = await desk.history.counts(caller.owner)
    return status_data(counts.unfinished)["status"]


@telling
async def submit(
    desk: Desk, site: Site, caller: Caller, query: PromptQuery, arrival: Arrival
) -> Annotated[web.Response, Gives("application/json")]:
    """Queue a workflow: JSON in API-format or an editor's, or a picture that carries one.

    What of it cannot be made is in `node_errors`; the job is on disk when this answers.
    """
    body = await _body(arrival, site)
    shelf = await desk.shelf(caller.owner)
    try:
        intake = await asyncio.to_thread(prompt_of, body, _options(query), caller.owner, shelf)
        (new,) = intake.jobs
        with desk.dispatcher.watching(new.id) as ended:
            (accepted,) = await _submitted(desk, intake.jobs)
            answer: Json = {
                "prompt_id": accepted.id,
                "number": number(accepted.number),
                "node_errors": intake.node_errors,
            }
            if intake.warnings:
                answer["warnings"] = list(intake.warnings)
            if query.wait:
                answer |= _made(await desk.outcome(new.id, caller.owner, ended, query.wait))
    except NotTaken as error:
        return json_answer(error.body, error.status)
    return json_answer(answer)


@telling
async def validate(
    desk: Desk, site: Site, caller: Caller, query: PromptQuery, arrival: Arrival
) -> Annotated[web.Response, Gives("application/json")]:
    """Everything that is wrong with a workflow. Nothing is queued."""
    body = await _body(arrival, site)
    shelf = await desk.shelf(caller.owner)
    return json_answer(await asyncio.to_thread(problems_of, body, _options(query), shelf))


@telling
async def submit_batch(
    desk: Desk, site: Site, caller: Caller, arrival: Arrival
) -> Annotated[web.Response, Gives("application/json")]:
    """Queue one workflow several times, each time with other inputs: `{"prompt": …, "sets": [{…}, …]}`."""
    body = await _body(arrival, site)
    shelf = await desk.shelf(caller.owner)
    try:
        intake = await asyncio.to_thread(batch_of, body, caller.owner, shelf)
        accepted = await _submitted(desk, intake.jobs)
    except NotTaken as error:
        return json_answer(error.body, error.status)
    jobs = [{"prompt_id": each.id, "number": number(each.number)} for each in accepted]
    return json_answer({"jobs": jobs, "node_errors": intake.node_errors, "warnings": list(intake.warnings)})


async def _body(arrival: Arrival, site: Site) -> bytes:
    body = await arrival.whole()
    limit = site.limits.json_bytes
    if len(body) > limit and not is_picture(body):
        raise Refused(413, f"a body in JSON may have {limit:,} bytes")
    return body


async def _submitted(desk: Desk, jobs: Any) -> Any:
    try:
        return await desk.submit(jobs)
    except DatabaseError as error:
        problem = refused(error)
        raise NotTaken(prompt_shape(problem), problem.status) from error


def _options(query: PromptQuery) -> dict[str, str]:
    return query.model_dump(exclude_none=True, include={"client_id", "prompt_id"})


def _made(job: Job) -> Json:
    answer: Json = {"status": STATUS[job.state]}
    if job.state in ENDINGS:
        answer["outputs"] = job.outputs.value()
    if job.error is not None:
        error = job.error
        answer["error"] = {"type": error.type, "message": error.message, "node_id": error.node_id}
    return answer


ROUTES = (
    get("/prompt", remaining),
    post("/prompt", submit, shape=prompt_shape),
    post("/validate", validate, shape=prompt_shape),
    post("/batch", submit_batch, shape=prompt_shape),
)
