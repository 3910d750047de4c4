"""`/prompt`, `/validate` and `/batch`: workflows in, jobs queued, outputs out for those who wait."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

from aiohttp import hdrs, web
from pydantic import BaseModel, Field

from server.database.jobs import ENDINGS, Job
from server.web.access import Caller
from server.web.answers import json_answer, json_bytes
from server.web.bodies import Arrival
from server.web.desk import Desk, telling
from server.web.endpoint import Gives, get, post
from server.web.forms import MULTIPART, received_parts
from server.web.hub import status_data
from server.web.intake import Sent, batch_of, problems_of, prompt_of
from server.web.job_forms import STATUS, number
from server.web.made import FORMATS, picture_answer, wanted_picture, with_contents
from server.web.parameters import STAGING, Bodies, Takes
from server.web.problems import Refused, Shape
from server.web.prompt_errors import NotTaken, Refusal, refusal
from server.web.requests import BatchRequest, EditorDocument, Json, PromptForm, PromptRequest
from server.web.site import Site
from workflows.pictures import is_picture

LONGEST_WAIT = 3600.0
DOCUMENT = "prompt"
"""The field of a form that holds the JSON."""
JSON = "application/json"
BODIES: Bodies = (
    (JSON, PromptRequest | EditorDocument),
    (MULTIPART, PromptForm),
    *((kind, None) for kind in ("image/png", "image/webp", "image/jpeg")),
)
BESIDES = (
    (202, "A picture was asked for, and the job is not over; the answer says which it is."),
    (422, "A picture was asked for, and the job failed or was cancelled; the answer says why."),
)
BATCH_BODIES: Bodies = ((JSON, BatchRequest), (MULTIPART, PromptForm))
KINDS = {401: "unauthorized", 403: "forbidden", 409: "duplicate_prompt_id", 413: "too_large", 429: "too_many_jobs"}


class Beside(BaseModel):
    """For pictures that carry a workflow, what JSON would say beside it."""

    client_id: str | None = None
    prompt_id: str | None = None


class PromptQuery(Beside):
    """How to answer."""

    wait: Annotated[float, Field(ge=0, le=LONGEST_WAIT, description="Seconds to wait for the outputs.")] = 0
    inline: Annotated[
        bool,
        Field(description="With `wait`: whether files in the outputs have their bytes with them, in base64 as `data`."),
    ] = False


def _as_refusal(problem: Refused) -> Json:
    kind = KINDS.get(problem.status, "invalid_request" if problem.status < 500 else "unavailable")
    return refusal(kind, problem.message)


PROMPT_SHAPE = Shape(_as_refusal, Refusal)


@telling
async def remaining(desk: Desk, caller: Caller) -> Json:
    """How many jobs wait and run."""
    counts = await desk.history.counts(caller.owner)
    return status_data(counts.unfinished)["status"]


@telling
async def submit(
    desk: Desk, site: Site, caller: Caller, query: PromptQuery, arrival: Annotated[Arrival, Takes(BODIES)]
) -> Annotated[web.StreamResponse, Gives(JSON, others=tuple(FORMATS), besides=BESIDES)]:
    """Queue a workflow: JSON in API-format or an editor's, or a picture that carries one.

    What of it cannot be made is in `node_errors`; the job is on disk when this answers. Pictures for nodes to read may
    come along, in `files` or as parts of a form. Who waits may have the outputs' files in the answer (`inline`), or the
    first picture as the answer (`Accept: image/png`, `image/jpeg` or `image/webp`). With a `webhook`, somebody else is
    told of the end, in a POST that is signed as Standard Webhooks has it, and tried again for some hours.
    """
    kind = wanted_picture(",".join(arrival.request.headers.getall(hdrs.ACCEPT, [])))
    if kind and not query.wait:
        raise Refused(400, f"Accept: {kind} asks for the picture itself; say how long to wait for it: ?wait=60")
    shelf = await desk.shelf(caller.owner)
    try:
        async with _sent(arrival, site) as sent:
            intake = await asyncio.to_thread(prompt_of, sent, _options(query), caller.owner, shelf)
        (new,) = intake.jobs
        with desk.dispatcher.watching(new.id) as ended:
            (accepted,) = await desk.submit(intake.jobs)
            answer: Json = {
                "prompt_id": accepted.id,
                "number": number(accepted.number),
                "node_errors": intake.node_errors,
            }
            if intake.warnings:
                answer["warnings"] = list(intake.warnings)
            if not query.wait:
                return json_answer(answer)
            job = await desk.outcome(new.id, caller.owner, ended, query.wait)
    except NotTaken as error:
        return json_answer(error.body, error.status)
    answer |= _made(job)
    if kind:
        if job.state != "done":
            return json_answer(answer, 422 if job.state in ENDINGS else 202)
        picture = await picture_answer(answer["outputs"], shelf.folders, kind, site.limits.picture_pixels)
        picture.headers["X-Prompt-Id"] = job.id
        return picture
    if query.inline and "outputs" in answer:
        answer["outputs"] = await asyncio.to_thread(with_contents, answer["outputs"], shelf.folders)
        return web.Response(body=await asyncio.to_thread(json_bytes, answer), content_type="application/json")
    return json_answer(answer)


@telling
async def validate(
    desk: Desk, site: Site, caller: Caller, query: Beside, arrival: Annotated[Arrival, Takes(BODIES)]
) -> Annotated[web.Response, Gives("application/json")]:
    """Everything that is wrong with a workflow. Nothing is queued."""
    shelf = await desk.shelf(caller.owner)
    async with _sent(arrival, site) as sent:
        return json_answer(await asyncio.to_thread(problems_of, sent, _options(query), shelf))


@telling
async def submit_batch(
    desk: Desk, site: Site, caller: Caller, arrival: Annotated[Arrival, Takes(BATCH_BODIES)]
) -> Annotated[web.Response, Gives("application/json")]:
    """Queue one workflow several times, each time with other inputs: `{"prompt": …, "sets": [{…}, …]}`."""
    shelf = await desk.shelf(caller.owner)
    try:
        async with _sent(arrival, site) as sent:
            intake = await asyncio.to_thread(batch_of, sent, caller.owner, shelf)
        accepted = await desk.submit(intake.jobs)
    except NotTaken as error:
        return json_answer(error.body, error.status)
    jobs = [{"prompt_id": each.id, "number": number(each.number)} for each in accepted]
    return json_answer({"jobs": jobs, "node_errors": intake.node_errors, "warnings": list(intake.warnings)})


@asynccontextmanager
async def _sent(arrival: Arrival, site: Site) -> AsyncGenerator[Sent]:
    """What a client sent. Files in a form are gone afterwards, unless they were kept."""
    limits = site.limits
    if arrival.request.content_type == MULTIPART:
        staging = site.folders.temp / STAGING
        async with received_parts(arrival, DOCUMENT, limits.json_bytes, staging) as parts:
            yield Sent(body=parts.document, files=parts.files, most_pixels=limits.picture_pixels, in_form=True)
        return
    body = await arrival.whole()
    if len(body) > limits.json_bytes and not is_picture(body):
        advice = "send pictures as parts of a form (multipart/form-data), or upload them before"
        raise Refused(413, f"a body in JSON may have {limits.json_bytes:,} bytes; {advice}")
    yield Sent(body=body, most_pixels=limits.picture_pixels)


def _options(query: Beside) -> dict[str, str]:
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
    post("/prompt", submit, shape=PROMPT_SHAPE),
    post("/validate", validate, shape=PROMPT_SHAPE),
    post("/batch", submit_batch, shape=PROMPT_SHAPE),
)
