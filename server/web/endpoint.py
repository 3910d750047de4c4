"""Declare a route: a typed function whose signature says what it takes, so that it is checked and documented.

    async def view(site: Site, caller: Caller, query: ViewQuery) -> web.StreamResponse:
        \"\"\"A picture or another file.\"\"\"

    ROUTES = (get("/view", view, key_in_url=True),)

A parameter is a part of the path if it has the name of one; `query` is a model of the query's parameters, `body` what
the body says in JSON, `form` a model of a form, and one of type `Arrival` is the body as it arrives. Everything else is
a service, found by its type: `Site`, `Caller`, `web.Request`, and whatever `make_application` was given.

What a function returns is the answer: a response, or anything that pydantic can write as JSON. One that is declared to
return None gives an empty answer.
"""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import cached_property
from types import NoneType
from typing import Any, get_type_hints

from aiohttp import web

from server.web.access import Need
from server.web.answers import json_answer
from server.web.parameters import ALWAYS_THERE, Parameter, Service, parameters_of, values_of
from server.web.problems import USUAL_SHAPE, Shape

Function = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Gives:
    """What a function gives that makes its responses itself: `Annotated[web.StreamResponse, Gives("image/png")]`.

    Args:
        others: media types that it gives to those who ask for them.
        besides: other statuses, and what each says; all in `media_type`.
        refusals: media types of refusals, beside JSON.
    """

    media_type: str | None = None
    status: int = 200
    others: tuple[str, ...] = ()
    besides: tuple[tuple[int, str], ...] = ()
    refusals: tuple[str, ...] = ()


@dataclass(frozen=True)
class Endpoint:
    """A function behind a route.

    Args:
        need: what a key has to allow.
        twin: whether it is there below `/api` too, as the protocol has it.
        key_in_url: whether a key may stand in the query, for what a page cannot ask for in another way.
        shape: of refusals.
        hidden: whether it is left out of the documentation.
    """

    method: str
    path: str
    function: Function
    need: Need
    twin: bool = True
    key_in_url: bool = False
    shape: Shape = USUAL_SHAPE
    hidden: bool = False

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """What the function takes."""
        return parameters_of(self.function, self.path)

    @cached_property
    def returns(self) -> Any:
        """What the function is declared to return; None: nothing."""
        returned = get_type_hints(self.function, include_extras=True).get("return", Any)
        return None if returned is NoneType else returned

    @property
    def services(self) -> frozenset[type]:
        """What has to be given to the application that has this route."""
        wanted = (each.type for each in self.parameters if isinstance(each, Service))
        return frozenset(wanted) - ALWAYS_THERE

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request."""
        async with AsyncExitStack() as stack:
            given = await self.function(**await values_of(self.parameters, request, stack))
            if isinstance(given, web.StreamResponse):
                return given
            return web.Response() if self.returns is None else json_answer(given)


def endpoint_of(handler: object) -> Endpoint | None:
    """The endpoint that a route's handler belongs to; None: it was not declared here."""
    owner = getattr(handler, "__self__", None)
    return owner if isinstance(owner, Endpoint) else None


def get(
    path: str,
    function: Function,
    need: Need = "read",
    *,
    twin: bool = True,
    key_in_url: bool = False,
    shape: Shape = USUAL_SHAPE,
    hidden: bool = False,
) -> web.RouteDef:
    """Something to look at. See `Endpoint`."""
    return web.get(path, Endpoint("GET", path, function, need, twin, key_in_url, shape, hidden).handle)


def post(
    path: str,
    function: Function,
    need: Need = "submit",
    *,
    twin: bool = True,
    shape: Shape = USUAL_SHAPE,
    hidden: bool = False,
) -> web.RouteDef:
    """Something to do. See `Endpoint`."""
    return web.post(path, Endpoint("POST", path, function, need, twin, False, shape, hidden).handle)


def patch(path: str, function: Function, need: Need = "submit", *, twin: bool = True) -> web.RouteDef:
    """Something to change. See `Endpoint`."""
    return web.patch(path, Endpoint("PATCH", path, function, need, twin).handle)


def delete(path: str, function: Function, need: Need = "submit", *, twin: bool = True) -> web.RouteDef:
    """Something to remove. See `Endpoint`."""
    return web.delete(path, Endpoint("DELETE", path, function, need, twin).handle)
