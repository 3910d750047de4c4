"""What a job made, as bytes: its first picture as the answer itself, or all of its files inside the answer's JSON."""

import asyncio
import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from aiohttp import web

from server.web.answers import FileAnswer
from server.web.files.file_types import type_of
from server.web.files.owner_folders import OwnerFolders
from server.web.files.pictures import Format, preview
from server.web.files.sending import file_headers, in_picture_thread
from server.web.problems import Refused
from server.web.routes.view import FileReference, find_file

MOST_BYTES = 64 * 1024 * 1024
"""Of all files in one answer; those beyond are named only."""
QUALITY = 95
FORMATS: Mapping[str, Format] = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp"}

Json = dict[str, Any]


def wanted_picture(accept: str) -> str | None:
    """The type of picture that a client likes better than JSON, going by its `Accept`; None: JSON will do."""
    liked: list[tuple[float, str]] = []
    for part in accept.split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if kind.startswith("image/") or kind in ("application/json", "application/*", "*/*"):
            liked.append((_quality(parameters), kind))
    quality, kind = max(liked, default=(0.0, ""), key=lambda each: each[0])
    if quality <= 0 or not kind.startswith("image/"):
        return None
    if kind != "image/*" and kind not in FORMATS:
        raise Refused(406, f"pictures are sent as {', '.join(FORMATS)}, not as {kind[:80]}")
    return kind


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


async def picture_answer(outputs: Json, folders: OwnerFolders, kind: str, most_pixels: int) -> web.StreamResponse:
    """The first picture as the answer. Refuses when there is none."""
    path = await asyncio.to_thread(_first_picture, outputs, folders)
    if path is None:
        raise Refused(406, "this workflow made no picture; ask for its outputs with Accept: application/json")
    own = type_of(path.name)
    if kind in ("image/*", own):
        return FileAnswer(path, headers=file_headers(path.name, own))
    form = FORMATS[kind]
    body = await in_picture_thread(lambda: preview(path, form, QUALITY, most_pixels))
    return web.Response(body=body, headers=file_headers(path.with_suffix(f".{form}").name, kind))


def _first_picture(outputs: Json, folders: OwnerFolders) -> Path | None:
    """One that was saved, or else one that was shown."""
    shown = [
        (file.get("type") != "output", path)
        for file, path in _files(outputs, folders)
        if type_of(path.name).startswith("image/")
    ]
    return min(shown, key=lambda each: each[0])[1] if shown else None


def with_contents(outputs: Json, folders: OwnerFolders) -> Json:
    """Outputs whose files bring their bytes along, in base64 as `data`. Looks at the disk."""
    left = MOST_BYTES
    for file, path in _files(outputs, folders):
        size = path.stat().st_size
        if size <= left:
            left -= size
            file["media_type"] = type_of(path.name)
            file["data"] = base64.b64encode(path.read_bytes()).decode()
    return outputs


def _files(outputs: Json, folders: OwnerFolders) -> Iterator[tuple[Json, Path]]:
    """The files that outputs name, as far as they are there."""
    for output in outputs.values():
        for listed in cast("Json", output).values() if isinstance(output, dict) else ():
            for file in cast("list[Any]", listed) if isinstance(listed, list) else ():
                if isinstance(file, dict) and "filename" in file:
                    named = cast("Json", file)
                    try:
                        yield named, find_file(folders, FileReference.model_validate(named))
                    except (Refused, ValueError, OSError):
                        continue  # gone by now
