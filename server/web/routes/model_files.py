"""`/models`, `/embeddings`, `/view_metadata`, `/experiment/models`: which models there are, and what they are like."""

import asyncio
from typing import Annotated, Any

from aiohttp import hdrs, web
from pydantic import BaseModel, Field

from graph.folders import MODEL_SUFFIXES, files_below
from server.web.endpoint import Gives, get
from server.web.files import models
from server.web.files.models import ModelFile
from server.web.files.sending import SANDBOX, in_picture_thread
from server.web.problems import Refused
from server.web.site import Site

NOT_LISTED = ("configs",)

Folder = Annotated[str, Field(description="A kind of models, such as `checkpoints` or `loras`.")]


class ModelFolder(BaseModel):
    """A kind of models, and where they are, below the data folder."""

    name: str
    folders: list[str]


class MetadataQuery(BaseModel):
    """Which file."""

    filename: Annotated[str, Field(description="A safetensors file.")] = ""


async def list_kinds(site: Site) -> list[str]:
    """The kinds of models."""
    return await asyncio.to_thread(models.kinds, site.folders)


async def list_models(site: Site, folder: Folder) -> list[str]:
    """The models of a kind, by the names under which nodes load them."""
    return list(await asyncio.to_thread(models.names, site.folders, folder))


async def list_embeddings(site: Site) -> list[str]:
    """The names of textual inversion embeddings, as they are written in prompts."""
    names = await asyncio.to_thread(files_below, site.folders.models("embeddings"), MODEL_SUFFIXES)
    return [name.rpartition(".")[0] for name in names]


async def view_metadata(site: Site, folder: Folder, query: MetadataQuery) -> dict[str, Any]:
    """What a safetensors file says of itself."""
    found = await asyncio.to_thread(models.metadata, site.folders, folder, query.filename)
    if found is None:
        raise Refused(404, f"no file {query.filename!r} in {folder!r} says anything of itself")
    return found


async def list_folders(site: Site) -> list[ModelFolder]:
    """The kinds of models, and where each is. Paths are below the data folder: the rest is nobody's business."""
    kinds = await asyncio.to_thread(models.kinds, site.folders)
    return [ModelFolder(name=kind, folders=[f"models/{kind}"]) for kind in kinds if kind not in NOT_LISTED]


async def list_details(site: Site, folder: Folder) -> list[ModelFile]:
    """The models of a kind, with their sizes and times."""
    return await asyncio.to_thread(models.details, site.folders, folder)


async def show_preview(
    site: Site, folder: Folder, path_index: int, filename: str
) -> Annotated[web.Response, Gives("image/webp")]:
    """A picture of what a model makes."""
    most = site.limits.picture_pixels
    picture = None
    if path_index == 0:
        picture = await in_picture_thread(lambda: models.model_preview(site.folders, folder, filename, most))
    if picture is None:
        raise Refused(404, f"there is no picture of {filename!r}")
    headers = {hdrs.CACHE_CONTROL: "no-cache", "Content-Security-Policy": SANDBOX}
    return web.Response(body=picture, content_type="image/webp", headers=headers)


ROUTES = (
    get("/models", list_kinds),
    get("/models/{folder}", list_models),
    get("/embeddings", list_embeddings),
    get("/view_metadata/{folder}", view_metadata),
    get("/experiment/models", list_folders),
    get("/experiment/models/{folder:[^/]+}", list_details),
    get("/experiment/models/preview/{folder}/{path_index}/{filename:[^/]+}", show_preview, key_in_url=True),
)
