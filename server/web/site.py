"""What the handlers of a site share: where files are, who may come in, and who knows of nodes and devices."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from server.web.access import Door
from server.web.files.owner_folders import OwnerFolders
from server.web.log_buffer import LogBuffer
from server.web.origins import Origins

Json = Mapping[str, Any]
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a request may bring.

    Args:
        upload_bytes: of a file, and of any body.
        json_bytes: of a body in JSON. While one is read, nobody else is served.
        picture_pixels: of a picture that has to be decoded; a small file may claim to be a huge one.
        patience: seconds for which a client may send nothing in the middle of a body.
    """

    upload_bytes: int = 100 * MIB
    json_bytes: int = 16 * MIB
    picture_pixels: int = 64 * 1024 * 1024
    patience: float = 60.0


async def no_nodes() -> Json:
    """A site without nodes."""
    return {}


async def as_it_is(described: Json, owner: str) -> Json:
    """A site on which everybody has the same files."""
    return described


async def no_devices() -> Sequence[Json]:
    """A site without devices."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a site is made of.

    Args:
        folders: the installation's own; `folders.of(owner)` gives those of an owner.
        describe_nodes: gives `object_info`. While it gives the same object, that is not encoded again.
        describe_to: gives what of it an owner is told: only the owner's own files can be chosen from.
        device_stats: gives the `devices` of `/system_stats`.
        features: what `/features` tells beside this server's own.
        extensions: scripts that an editor is to load, as paths of this site.
        arguments: what `/system_stats` tells of the command line; without paths and without keys.
        compress: whether answers in text are compressed for clients that can take it.
    """

    folders: OwnerFolders
    door: Door
    origins: Origins = field(default_factory=Origins)
    limits: Limits = field(default_factory=Limits)
    describe_nodes: Callable[[], Awaitable[Json]] = no_nodes
    describe_to: Callable[[Json, str], Awaitable[Json]] = as_it_is
    device_stats: Callable[[], Awaitable[Sequence[Json]]] = no_devices
    features: Json = field(default_factory=dict[str, Any])
    extensions: Sequence[str] = ()
    arguments: Sequence[str] = ("latentloom", "serve")
    log: LogBuffer = field(default_factory=LogBuffer)
    compress: bool = False


SITE = web.AppKey("site", Site)
