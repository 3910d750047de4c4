"""`/internal/…`: what editors show of the server's inside: its log, its folders, its files."""

import asyncio
import os
import shutil
from pathlib import Path

from pydantic import BaseModel, Field

from server.web.access import Caller
from server.web.endpoint import get, patch
from server.web.files import models
from server.web.files.owner_folders import KINDS
from server.web.log_buffer import Entry
from server.web.problems import Refused
from server.web.routes.view import FolderName
from server.web.site import Site


class TerminalSize(BaseModel):
    """Of the terminal that the log is written to."""

    cols: int
    rows: int


class RawLog(BaseModel):
    """The last entries of the log, and how wide they may be shown."""

    entries: list[Entry]
    size: TerminalSize


class Following(BaseModel):
    """Who wants to be sent what is logged."""

    clientId: str = Field(max_length=1000, description="The id of a websocket.")
    enabled: bool


async def log_text(site: Site) -> str:
    """The last entries of the log, as one text."""
    return "".join(f"{entry.t} - {entry.m}" for entry in site.log.entries)


async def log_entries(site: Site) -> RawLog:
    """The last entries of the log."""
    columns, lines = shutil.get_terminal_size()
    return RawLog(entries=list(site.log.entries), size=TerminalSize(cols=columns, rows=lines))


async def follow_log(site: Site, body: Following) -> None:
    """Have what is logged sent to a websocket, or no longer."""
    if not site.log.follow(body.clientId, body.enabled):
        raise Refused(429, "too many follow the log already")


async def folder_paths(site: Site) -> dict[str, list[str]]:
    """The folders of models, below the data folder."""
    kinds = await asyncio.to_thread(models.kinds, site.folders)
    return {kind: [f"models/{kind}"] for kind in kinds}


async def newest_files(site: Site, caller: Caller, directory: FolderName) -> list[str]:
    """The files of a folder, the newest first."""
    folders = site.folders.of(caller.owner)
    for kind in KINDS:
        if kind == directory:
            return await asyncio.to_thread(_newest, folders.write_to(kind))
    raise Refused(400, "Invalid directory type")


def _newest(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    found = [(entry.stat().st_mtime, entry.name) for entry in os.scandir(folder) if _is_shown(entry)]
    return [name for _, name in sorted(found, reverse=True)]


def _is_shown(entry: "os.DirEntry[str]") -> bool:
    return not entry.name.startswith(".") and entry.is_file(follow_symlinks=False)


ROUTES = (
    get("/internal/logs", log_text, need="admin", twin=False),
    get("/internal/logs/raw", log_entries, need="admin", twin=False),
    patch("/internal/logs/subscribe", follow_log, need="admin", twin=False),
    get("/internal/folder_paths", folder_paths, need="admin", twin=False),
    get("/internal/files/{directory}", newest_files, twin=False),
)
