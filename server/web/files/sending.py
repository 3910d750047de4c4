"""Files as answers."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from aiohttp import hdrs, web
from aiohttp.helpers import content_disposition_header

from server.web.answers import FileAnswer, kept_answer, unchanged
from server.web.files.file_types import UNKNOWN, type_of

T = TypeVar("T")

# Whatever a file may be, as a page of its own it may neither run anything nor load anything.
SANDBOX = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; media-src 'self'"
# Decoding takes much memory: few at a time, on threads of their own, so that quick work does not wait behind it.
_decoding = ThreadPoolExecutor(2, thread_name_prefix="pictures")


def file_headers(name: str, media_type: str) -> dict[str, str]:
    """What goes along with a file: what it is, its name, and that nothing in it is to be run."""
    how = "attachment" if media_type == UNKNOWN else "inline"
    return {
        hdrs.CONTENT_TYPE: f"{media_type}; charset=utf-8" if media_type.startswith("text/") else media_type,
        hdrs.CONTENT_DISPOSITION: content_disposition_header(how, filename=_clean(name)),
        hdrs.CACHE_CONTROL: "no-cache",
        "Content-Security-Policy": SANDBOX,
    }


def file_answer(path: Path) -> web.StreamResponse:
    """A file as it is. Its ETag and its time tell whether a client has it already."""
    return FileAnswer(path, headers=file_headers(path.name, type_of(path.name)))


async def remade_answer(
    request: web.Request, path: Path, variant: str, media_type: str, make: Callable[[], bytes]
) -> web.Response:
    """What is made of a file, unless the client has it already.

    Args:
        variant: tells apart what can be made of one file.
    """
    state = await asyncio.to_thread(os.stat, path)
    etag = f"{state.st_mtime_ns:x}-{state.st_size:x}-{variant}"
    body = b"" if unchanged(request, etag) else await in_picture_thread(make)
    return kept_answer(request, body, etag, file_headers(path.name, media_type))


async def in_picture_thread(make: Callable[[], T]) -> T:
    """Do something with pictures."""
    return await asyncio.get_running_loop().run_in_executor(_decoding, make)


def _clean(name: str) -> str:
    """Without what cannot be in a header: control characters, and halves of letters."""
    return "".join(letter for letter in name if letter.isprintable()).encode(errors="replace").decode() or "file"
