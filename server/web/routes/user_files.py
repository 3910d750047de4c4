"""`/userdata` and `/v2/userdata`: files that editors keep for their owner, such as workflows."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, Field

from server.web.access import Caller
from server.web.bodies import Arrival
from server.web.endpoint import Gives, delete, get, post
from server.web.files import user_files
from server.web.files.sending import file_answer
from server.web.files.staging import StagedFile
from server.web.files.user_files import Entry, FileInfo
from server.web.parameters import STAGING
from server.web.problems import Refused
from server.web.site import Site

Name = Annotated[str, Field(description="The path of a file; slashes in it are sent as %2F.")]


class Listing(BaseModel):
    """What is to be listed, and how."""

    dir: Annotated[str | None, Field(description="A folder; it has to be given.")] = None
    recurse: Annotated[bool, Field(description="Folders in it too.")] = False
    full_info: Annotated[bool, Field(description="With sizes and times.")] = False
    split: Annotated[bool, Field(description="Each path followed by its parts.")] = False


class Path2(BaseModel):
    """A folder."""

    path: str = ""


class Writing(BaseModel):
    """How a file is to be written."""

    overwrite: Annotated[bool, Field(description="In the place of a file of this name.")] = True
    full_info: Annotated[bool, Field(description="Answer with size and times.")] = False


async def list_files(site: Site, caller: Caller, query: Listing) -> list[str] | list[FileInfo] | list[list[str]]:
    """The files in a folder."""
    if not query.dir:
        raise Refused(400, "say which folder: dir=…")
    return await asyncio.to_thread(_list, _root(site, caller), query)


def _list(root: Path, query: Listing) -> list[str] | list[FileInfo] | list[list[str]]:
    folder = user_files.folder_at(root, query.dir or "")
    paths = user_files.files(folder, query.recurse)
    if query.full_info:
        return [user_files.info(path, folder) for path in paths]
    names = [path.relative_to(folder) for path in paths]
    if query.split:
        return [[name.as_posix(), *name.parts] for name in names]
    return [name.as_posix() for name in names]


async def list_everything(site: Site, caller: Caller, query: Path2) -> list[Entry]:
    """The files and folders below a folder."""
    root = _root(site, caller)

    def look() -> list[Entry]:
        if not query.path and not root.is_dir():
            return []
        return user_files.entries(root, user_files.folder_at(root, query.path))

    return await asyncio.to_thread(look)


async def read_file(site: Site, caller: Caller, file: Name) -> Annotated[web.StreamResponse, Gives("*/*")]:
    """A file."""
    return file_answer(await asyncio.to_thread(user_files.file_at, _root(site, caller), file))


async def write_file(site: Site, caller: Caller, file: Name, query: Writing, body: Arrival) -> str | FileInfo:
    """Keep a file: the body, as it is."""
    root = _root(site, caller)
    path = await asyncio.to_thread(user_files.new_place, root, file)
    staged = await asyncio.to_thread(StagedFile.new, site.folders.temp / STAGING)
    try:
        async for piece in body.pieces():
            await asyncio.to_thread(staged.append, piece)
        await asyncio.to_thread(user_files.keep, staged, path, query.overwrite)
    finally:
        await asyncio.shield(asyncio.to_thread(staged.discard))
    return await asyncio.to_thread(_told(root, path, query))


async def remove_file(site: Site, caller: Caller, file: Name) -> Annotated[web.Response, Gives(status=204)]:
    """Remove a file."""
    root = _root(site, caller)
    await asyncio.to_thread(lambda: user_files.file_at(root, file).unlink())
    return web.Response(status=204)


async def move_file(site: Site, caller: Caller, file: Name, dest: Name, query: Writing) -> str | FileInfo:
    """Give a file another name."""
    root = _root(site, caller)

    def move() -> Path:
        path = user_files.new_place(root, dest)
        user_files.move(user_files.file_at(root, file), path, query.overwrite)
        return path

    return await asyncio.to_thread(_told(root, await asyncio.to_thread(move), query))


def _told(root: Path, path: Path, query: Writing) -> Callable[[], str | FileInfo]:
    return lambda: user_files.info(path, root) if query.full_info else path.relative_to(root).as_posix()


def _root(site: Site, caller: Caller) -> Path:
    return site.folders.of(caller.owner).user


ROUTES = (
    get("/userdata", list_files),
    get("/v2/userdata", list_everything),
    get("/userdata/{file:[^/]+}", read_file, key_in_url=True),
    post("/userdata/{file:[^/]+}", write_file),
    delete("/userdata/{file:[^/]+}", remove_file),
    post("/userdata/{file:[^/]+}/move/{dest:[^/]+}", move_file),
)
