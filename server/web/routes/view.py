"""`/view`: pictures and other files of the input, output and temp folders."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, Field

from nodes.loading import ANNOTATED
from server.web.access import Caller
from server.web.endpoint import Gives, get
from server.web.files.names import found
from server.web.files.owner_folders import KINDS, Kind, OwnerFolders
from server.web.files.pictures import Format, alpha_alone, preview, without_alpha
from server.web.files.sending import file_answer, remade_answer
from server.web.problems import Refused
from server.web.site import Site

USUAL_QUALITY = 90


# Its values are only documented here: whoever states another one is told so in a sentence of its own.
FolderName = Annotated[str, Field(description="Which folder.", json_schema_extra={"enum": ["input", "output", "temp"]})]


class FileReference(BaseModel):
    """A file, as answers of this server name it."""

    filename: Annotated[
        str | None, Field(description="May begin with sub-folders, and end in ` [input]`, ` [output]` or ` [temp]`.")
    ] = None
    subfolder: str = ""
    type: FolderName = "output"


class ViewQuery(FileReference):
    """A file, and how it is to be shown."""

    preview: Annotated[
        str | None,
        Field(description="`webp` or `jpeg`, maybe with a quality: `jpeg;80`. If left out: the file itself."),
    ] = None
    channel: Annotated[
        str, Field(description="`rgb`: without transparency; `a`: the transparency alone; otherwise everything.")
    ] = ""


def find_file(folders: OwnerFolders, reference: FileReference) -> Path:
    """The file that is meant. Refuses what is not there. Looks at the disk."""
    name, kind = _split(reference)
    places = folders.read_from(kind)
    # Other servers of the protocol look at the last part of the name alone.
    path = found(places, reference.subfolder, name) or found(places, reference.subfolder, PurePath(name).name)
    if path is None:
        raise Refused(404, f"there is no file {name!r} in the {kind} folder")
    return path


def _split(reference: FileReference) -> tuple[str, Kind]:
    if reference.filename is None:
        raise Refused(404, "no file was named; say filename=…")
    annotated = ANNOTATED.fullmatch(reference.filename)
    name, stated = (annotated["name"], annotated["folder"]) if annotated else (reference.filename, reference.type)
    if not name or name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name):
        raise Refused(400, f"{name!r} is no file in a folder")
    return name, folder_kind(stated)


def folder_kind(stated: str) -> Kind:
    """The folder that is meant."""
    for kind in KINDS:
        if kind == stated:
            return kind
    raise Refused(400, f"there is no folder {stated!r}; there are {', '.join(KINDS)}")


async def view(
    request: web.Request, site: Site, caller: Caller, query: ViewQuery
) -> Annotated[web.StreamResponse, Gives("*/*")]:
    """A picture or another file. Can be asked for in part, and again with its ETag."""
    path = await asyncio.to_thread(find_file, site.folders.of(caller.owner), query)
    most = site.limits.picture_pixels
    if query.preview is not None:
        form, quality = _preview(query)
        return await remade_answer(
            request, path, f"{form}-{quality}", f"image/{form}", lambda: preview(path, form, quality, most)
        )
    make: dict[str, Callable[[], bytes]] = {
        "rgb": lambda: without_alpha(path, most),
        "a": lambda: alpha_alone(path, most),
    }
    if query.channel in make:
        return await remade_answer(request, path, query.channel, "image/png", make[query.channel])
    return file_answer(path)


def _preview(query: ViewQuery) -> tuple[Format, int]:
    form, _, quality = (query.preview or "").partition(";")
    number = int(quality) if re.fullmatch(r"[0-9]{1,3}", quality) else USUAL_QUALITY
    # JPEG knows no transparency: who names a channel with it gets WebP.
    is_jpeg = form == "jpeg" and "a" not in query.channel
    return "jpeg" if is_jpeg else "webp", min(max(number, 1), 100)


ROUTES = (get("/view", view, key_in_url=True),)
