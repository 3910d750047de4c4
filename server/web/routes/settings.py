"""`/settings`: what an editor remembers of its owner's wishes."""

import asyncio
from typing import Annotated, Any

from pydantic import Field

from server.web.access import Caller
from server.web.endpoint import get, post
from server.web.files.settings_file import change_settings, read_settings
from server.web.site import Site

Name = Annotated[str, Field(description="Of a setting, as the editor calls it.", max_length=1000)]


async def all_settings(site: Site, caller: Caller) -> dict[str, Any]:
    """Everything that is set."""
    return await asyncio.to_thread(read_settings, site.folders.of(caller.owner).user)


async def change_some(site: Site, caller: Caller, body: dict[str, Any]) -> None:
    """Set some; the others stay as they are."""
    await asyncio.to_thread(change_settings, site.folders.of(caller.owner).user, body)


async def one_setting(site: Site, caller: Caller, name: Name) -> Any:
    """A setting; null if it is not set."""
    return (await all_settings(site, caller)).get(name)


async def change_one(site: Site, caller: Caller, name: Name, body: Any) -> None:
    """Set one, to any JSON value."""
    await change_some(site, caller, {name: body})


ROUTES = (
    get("/settings", all_settings),
    post("/settings", change_some),
    get("/settings/{name:[^/]+}", one_setting),
    post("/settings/{name:[^/]+}", change_one),
)
