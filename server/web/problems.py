"""What is wrong with a request, told as JSON: `{"error": "a sentence", "problems": [{"in", "name", "message"}]}`."""

import errno
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler
from pydantic import BaseModel, ConfigDict, Field

from server.web.answers import json_answer

LOGGER = logging.getLogger("latentloom.web")

Place = Literal["path", "query", "header", "body", "form"]


class Wrong(BaseModel):
    """One thing that is wrong."""

    model_config = ConfigDict(frozen=True)

    place: Place = Field(serialization_alias="in")
    name: str = Field(description="The parameter, or the way to the value: `inputs.seed`.")
    message: str


class Problem(BaseModel):
    """The body of an answer that refuses."""

    error: str = Field(description="A sentence for people.")
    problems: list[Wrong] = Field(default=[], description="Everything that is wrong with the request's parts.")


class Refused(Exception):
    """A request is not answered as it wants to be. Handlers raise it; the client is told `message`."""

    def __init__(
        self, status: int, message: str, wrong: Sequence[Wrong] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        self.status = status
        self.message = message
        self.wrong = tuple(wrong)
        self.headers = dict(headers or {})
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Shape:
    """How refusals are told: what makes their JSON, and the model that describes it."""

    tell: Callable[[Refused], Any]
    model: type[BaseModel]


def _as_problem(refused: Refused) -> Any:
    return Problem(error=refused.message, problems=list(refused.wrong)).model_dump(by_alias=True, exclude_defaults=True)


USUAL_SHAPE = Shape(_as_problem, Problem)
"""Of every route that does not have one of its own."""
SHAPE: web.RequestKey[Shape] = web.RequestKey("shape")
"""Put into a request whose refusals are to have another shape."""
BEGUN = web.RequestKey("begun", bool)
"""In a request whose answer is on its way: it is too late for another one."""


BROKEN = (HttpProcessingError, web.RequestPayloadError)
"""A body that cannot be read."""


@web.middleware
async def tell_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever goes wrong into an answer that says so, without a traceback and without paths of this machine."""
    try:
        return await handler(request)
    except Exception as error:
        if request.get(BEGUN) or isinstance(error, ConnectionError):
            raise
        if isinstance(error, web.HTTPException) and error.status < 400:
            raise
        refused = _refusal(request, error)
        # A body that nobody reads any more would be taken for the next request.
        answer = json_answer(request.get(SHAPE, USUAL_SHAPE).tell(refused), refused.status, refused.headers)
        if refused.status == 413 or isinstance(error, BROKEN):
            answer.force_close()
        return answer


def _refusal(request: web.Request, error: Exception) -> Refused:
    match error:
        case Refused():
            return error
        case web.HTTPException():
            return _of_http(request, error)
        case _ if isinstance(error, BROKEN):
            return Refused(400, "the body did not arrive as its headers promise")
        case OSError():
            return _of_disk(error)
        case _:
            return _of_mistake(request, error)


def _of_http(request: web.Request, error: web.HTTPException) -> Refused:
    match error:
        case web.HTTPNotFound():
            return Refused(404, f"there is nothing at {request.path}")
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            return Refused(405, f"{request.method} is not for {request.path}; use {allowed}", (), {hdrs.ALLOW: allowed})
        case web.HTTPRequestEntityTooLarge():
            return Refused(413, "the body is larger than this server takes")
        case _:
            return Refused(error.status, error.reason)


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_IN_THE_WAY = frozenset({errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY})


def _of_disk(error: OSError) -> Refused:
    """What the disk did not want. The error's own text names files of this machine, which are nobody's business."""
    LOGGER.warning("a request met %s", error)
    if error.errno in _FULL:
        return Refused(507, "there is no room left on the server's disk")
    if error.errno in _IN_THE_WAY:
        return Refused(409, "a file is where a folder should be, or a folder where a file should be")
    if error.errno in (errno.ENAMETOOLONG, errno.EINVAL):
        return Refused(400, "the server's disk cannot have a file of that name")
    return Refused(503, f"the server's disk did not do it: {error.strerror or type(error).__name__}")


def _of_mistake(request: web.Request, error: Exception) -> Refused:
    number = secrets.token_hex(4)
    LOGGER.error("error %s in %s %s", number, request.method, request.path, exc_info=error)
    return Refused(500, f"this is a mistake of the server; its log tells more under {number}")
