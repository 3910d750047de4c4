"""Forms (multipart/form-data): their fields, and their files, which are staged on the disk as they arrive."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import BaseModel, WithJsonSchema

from server.web.bodies import Arrival
from server.web.files.staging import StagedFile
from server.web.problems import Refused

MULTIPART = "multipart/form-data"
LONGEST_FIELD = 64 * 1024
MOST_PARTS = 100

# How aiohttp's reader finds that a form is none. Of some things it only warns, which is an error where warnings are
# errors, as in our tests.
_MALFORMED = (ValueError, AssertionError, RuntimeError, LookupError, TypeError, HttpProcessingError, Warning)


class SentFile:
    """A file in a form, and the name it has at the client."""

    # No dataclass: pydantic would take that apart, while this is to be passed on as it is.
    def __init__(self, name: str, staged: StagedFile) -> None:
        self.name = name
        self.staged = staged


FormFile = Annotated[
    SentFile, WithJsonSchema({"type": "string", "contentMediaType": "application/octet-stream", "format": "binary"})
]
"""The type of a form's field that is a file."""


class Form(BaseModel):
    """What a form has to hold. Fields that it does not know are left out."""

    model_config = {"arbitrary_types_allowed": True, "extra": "ignore"}


def file_fields(form: type[Form]) -> frozenset[str]:
    """The fields that are files."""
    return frozenset(name for name, info in form.model_fields.items() if info.annotation is SentFile)


@dataclass(slots=True)
class _Sent:
    """What has arrived so far."""

    longest: int = LONGEST_FIELD
    said: list[tuple[str, bytes | SentFile]] = field(default_factory=list[tuple[str, bytes | SentFile]])
    staged: list[StagedFile] = field(default_factory=list[StagedFile])


class _Others:
    """All fields but one."""

    def __init__(self, one: str) -> None:
        self._one = one

    def __contains__(self, name: object) -> bool:
        return name != self._one


@dataclass(frozen=True, slots=True)
class Parts:
    """A document that came in one field of a form, and the files in all others by their names at the client."""

    document: bytes
    files: Mapping[str, StagedFile]


@contextlib.asynccontextmanager
async def received_parts(arrival: Arrival, document: str, longest: int, folder: Path) -> AsyncGenerator[Parts]:
    """A document and files; these are gone afterwards, unless they were published.

    Args:
        document: the name of the field with the document.
        longest: bytes that it may have.
        folder: where files are staged.
    """
    sent = _Sent(longest=longest)
    try:
        await _receive(arrival, _Others(document), folder, sent)
        texts = [name for name, said in sent.said if isinstance(said, bytes)]
        if texts != [document]:
            found = f"; found {', '.join(map(repr, texts))}" if texts else ""
            raise Refused(400, f"the form has to have one field {document!r} with the JSON, and files besides{found}")
        files: dict[str, StagedFile] = {}
        for _, file in sent.said:
            if isinstance(file, SentFile):
                if file.name in files:
                    raise Refused(400, f"two files of the form are called {file.name[:80]!r}")
                files[file.name] = file.staged
        yield Parts(next(said for _, said in sent.said if isinstance(said, bytes)), files)
    finally:
        await _discard(sent)


@contextlib.asynccontextmanager
async def received(arrival: Arrival, files: frozenset[str], folder: Path) -> AsyncGenerator[Mapping[str, Any]]:
    """The fields of a form; files in it are gone afterwards, unless they were published.

    Args:
        files: the fields that are files.
        folder: where files are staged.
    """
    sent = _Sent()
    try:
        await _receive(arrival, files, folder, sent)
        yield {name: said.decode("utf-8") if isinstance(said, bytes) else said for name, said in sent.said}
    except UnicodeDecodeError as error:
        raise Refused(400, f"the form is malformed: {_reason(error)}") from error
    finally:
        await _discard(sent)


async def _discard(sent: _Sent) -> None:
    for staged in sent.staged:
        # Also when the client has gone: then this task is being cancelled, and there is no waiting any more.
        await asyncio.shield(asyncio.to_thread(staged.discard))


async def _receive(arrival: Arrival, files: Container[str], folder: Path, sent: _Sent) -> None:
    if arrival.request.content_type != MULTIPART:
        raise Refused(400, f"the body has to be a form ({MULTIPART}), not {arrival.request.content_type}")
    try:
        reader = await arrival.request.multipart()
        for _ in range(MOST_PARTS):
            part = await arrival.waited(reader.next())
            if part is None:
                return
            if not isinstance(part, BodyPartReader):
                raise Refused(400, "a form inside a form is not understood")
            await _receive_part(arrival, part, files, folder, sent)
    except web.HTTPException:
        raise
    except _MALFORMED as error:
        raise Refused(400, f"the form is malformed: {_reason(error)}") from error
    raise Refused(400, f"a form may have {MOST_PARTS} fields")


async def _receive_part(
    arrival: Arrival, part: BodyPartReader, files: Container[str], folder: Path, sent: _Sent
) -> None:
    name = part.name or ""
    read: Callable[[], Any] = part.read_chunk
    if name in files and part.filename is not None:
        staged = await asyncio.to_thread(StagedFile.new, folder)
        sent.staged.append(staged)
        async for piece in arrival.gathered(read):
            await asyncio.to_thread(staged.append, piece)
        sent.said.append((name, SentFile(part.filename, staged)))
        return
    text = bytearray()
    async for piece in arrival.gathered(read):
        text += piece
        if len(text) > sent.longest:
            raise Refused(413, f"the field {name!r} of the form has more than {sent.longest:,} bytes")
    sent.said.append((name, bytes(text)))


def _reason(error: Exception) -> str:
    return getattr(error, "message", None) or str(error) or type(error).__name__
