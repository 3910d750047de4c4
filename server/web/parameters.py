"""What the parameters of a handler are, read from its signature, and how each gets its value from a request."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import cached_property
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from aiohttp import web
from pydantic import BaseModel, TypeAdapter, ValidationError

from server.web.access import CALLER, Caller
from server.web.bodies import Arrival, parse_json
from server.web.forms import Form, file_fields, received
from server.web.problems import Place, Refused, Wrong
from server.web.site import SITE, Site

SERVICES = web.AppKey("services", Mapping[type, Any])
STAGING = ".uploads"
"""Below the folder of temporary files: where uploads arrive."""

Bodies = tuple[tuple[str, Any], ...]
"""Media types, and the type of what is sent as such; None: any bytes."""

LONGEST_SHOWN = 80
_IN_PATH = re.compile(r"\{(\w+)(?::[^{}]*)?\}")
_REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Checked:
    """A parameter whose value pydantic checks."""

    name: str
    annotation: Any
    default: Any = _REQUIRED

    @property
    def required(self) -> bool:
        """Whether there has to be something."""
        return self.default is _REQUIRED

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """Checks values, and describes them."""
        return TypeAdapter(self.annotation)


class PathPart(Checked):
    """A part of the path, decoded."""

    async def read(self, request: web.Request, stack: AsyncExitStack) -> Any:
        """Its value."""
        return checked(self.adapter, request.match_info[self.name], "path", self.name)


class Query(Checked):
    """A model of the query's parameters. Others are left out: pages add some to get past caches."""

    async def read(self, request: web.Request, stack: AsyncExitStack) -> Any:
        """What the query says."""
        model: type[BaseModel] = self.annotation
        said: dict[str, Any] = {}
        for name, info in model.model_fields.items():
            name = info.alias or name
            if name in request.query:
                said[name] = request.query.getall(name) if _is_list(info.annotation) else request.query[name]
        return checked(self.adapter, said, "query")


class JsonBody(Checked):
    """The body, in JSON, whatever its headers call it."""

    async def read(self, request: web.Request, stack: AsyncExitStack) -> Any:
        """What it says."""
        limits = request.app[SITE].limits
        body = await Arrival(request, limits.json_bytes, limits.patience).whole()
        if not body and not self.required:
            return self.default
        return checked(self.adapter, parse_json(body), "body")


class FormBody(Checked):
    """A form. Its files are on the disk by now, and gone when the handler returns, unless it published them."""

    async def read(self, request: web.Request, stack: AsyncExitStack) -> Any:
        """The form."""
        site = request.app[SITE]
        model: type[Form] = self.annotation
        arrival = Arrival(request, site.limits.upload_bytes, site.limits.patience)
        form = received(arrival, file_fields(model), site.folders.temp / STAGING)
        return checked(self.adapter, await stack.enter_async_context(form), "form")


@dataclass(frozen=True)
class Takes:
    """What a handler reads that takes the body as it arrives: `Annotated[Arrival, Takes(("text/csv", None))]`."""

    bodies: Bodies

    @cached_property
    def adapters(self) -> Mapping[str, TypeAdapter[Any] | None]:
        """Describe what is sent."""
        return {kind: None if sent is None else TypeAdapter(sent) for kind, sent in self.bodies}


ANYTHING = Takes((("application/octet-stream", None),))


@dataclass(frozen=True, slots=True)
class WholeBody:
    """The body as it arrives."""

    name: str
    takes: Takes = ANYTHING

    async def read(self, request: web.Request, stack: AsyncExitStack) -> Arrival:
        """What is to be read."""
        limits = request.app[SITE].limits
        return Arrival(request, limits.upload_bytes, limits.patience)


@dataclass(frozen=True, slots=True)
class Service:
    """Something that the application has, and no part of the request."""

    name: str
    type: type

    async def read(self, request: web.Request, stack: AsyncExitStack) -> Any:
        """The service."""
        if self.type is web.Request:
            return request
        if self.type is Caller:
            return request[CALLER]
        return request.app[SITE] if self.type is Site else request.app[SERVICES][self.type]


Parameter = PathPart | Query | JsonBody | FormBody | WholeBody | Service
Body = JsonBody | FormBody | WholeBody
ALWAYS_THERE = frozenset[type]({web.Request, Caller, Site})


def parameters_of(function: Callable[..., Any], path: str) -> tuple[Parameter, ...]:
    """The parameters of a handler, the body last. Raises TypeError for one that nobody could fill."""
    in_path = frozenset(_IN_PATH.findall(path))
    hints = get_type_hints(function, include_extras=True)
    found = [
        _parameter(name, hints.get(name), each.default, in_path)
        for name, each in inspect.signature(function).parameters.items()
    ]
    missing = in_path - {each.name for each in found if isinstance(each, PathPart)}
    bodies = [each for each in found if isinstance(each, Body)]
    if missing or len(bodies) > 1:
        reason = f"has no parameter for {', '.join(sorted(missing))}" if missing else "takes more than one body"
        raise TypeError(f"{function.__qualname__} {reason}")
    return (*(each for each in found if not isinstance(each, Body)), *bodies)


def _parameter(name: str, annotation: Any, default: Any, in_path: frozenset[str]) -> Parameter:
    if name in in_path:
        return PathPart(name, annotation)
    match name:
        case _ if annotation is Arrival:
            return WholeBody(name)
        case _ if get_origin(annotation) is Annotated and get_args(annotation)[0] is Arrival:
            return WholeBody(name, next(each for each in get_args(annotation) if isinstance(each, Takes)))
        case "query":
            return Query(name, annotation)
        case "body":
            return JsonBody(name, annotation, default)
        case "form":
            return FormBody(name, annotation)
        case _ if isinstance(annotation, type):
            return Service(name, annotation)
        case _:
            raise TypeError(f"nobody knows where the parameter {name!r} should come from")


async def values_of(parameters: Iterable[Parameter], request: web.Request, stack: AsyncExitStack) -> Mapping[str, Any]:
    """What the parameters are for this request. Refuses it with everything that is wrong in its path and query."""
    values: dict[str, Any] = {}
    wrong: list[Wrong] = []
    for parameter in parameters:
        if wrong and isinstance(parameter, Body):
            break
        try:
            values[parameter.name] = await parameter.read(request, stack)
        except _WrongPart as error:
            wrong += error.wrong
    if wrong:
        raise Refused(400, "; ".join(f"{_place(each)}: {each.message}" for each in wrong[:10]), wrong)
    return values


class _WrongPart(Exception):
    """A part of the request does not fit its type."""

    def __init__(self, wrong: list[Wrong]) -> None:
        super().__init__(wrong)
        self.wrong = wrong


def checked(adapter: TypeAdapter[Any], said: Any, place: Place, name: str = "") -> Any:
    """What was said, as its type has it."""
    try:
        return adapter.validate_python(said)
    except ValidationError as error:
        wrong = [
            Wrong(
                place=place,
                name=".".join(str(part) for part in each["loc"]) or name,
                message=_message(each["type"], each["msg"], each["input"]),
            )
            for each in error.errors(include_url=False, include_context=False)
        ]
        raise _WrongPart(wrong) from error


def _message(kind: str, message: str, found: Any) -> str:
    sentence = message[:1].lower() + message[1:]
    if kind == "missing":
        return "it is missing"
    shown = repr(found)
    return f"{sentence}, not {shown if len(shown) <= LONGEST_SHOWN else shown[:LONGEST_SHOWN] + '…'}"


def _place(wrong: Wrong) -> str:
    return f"{wrong.place} {wrong.name!r}" if wrong.name else wrong.place


def _is_list(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _is_list(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return any(_is_list(each) for each in get_args(annotation))
    return origin in (list, tuple, set, frozenset)
