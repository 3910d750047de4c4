"""Frames: messages as bytes, several at a time.

A frame is a header, JSON, and blobs. The header holds a mark, the version of the protocol and two sizes in bytes, all
big-endian: of the JSON, and of the blobs together. The JSON is a list: the sizes of the blobs, then the messages, in
which a blob stands as its number. So pictures and documents pass as they are, and nobody reads JSON in JSON.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from struct import Struct
from typing import Annotated, Generic, TypeVar, cast

from pydantic import PlainSerializer, PlainValidator, SerializationInfo, TypeAdapter, ValidationError, ValidationInfo

M = TypeVar("M")

VERSION = 1
"""Of frames and messages together. A server and a worker of different versions do not understand each other."""
MARK = b"LLW"
_HEADER = Struct(">3sBII")
HEADER_BYTES = _HEADER.size
MOST_BYTES = 1 << 30
"""A frame that claims to be larger is none."""


class BadFrame(ValueError):
    """What came is not what the other side of this version would say."""


def _number(blob: bytes, info: SerializationInfo) -> int:
    blobs = cast("list[bytes]", info.context)
    blobs.append(blob)
    return len(blobs) - 1


def _blob(number: object, info: ValidationInfo) -> bytes:
    blobs = cast("Sequence[bytes]", info.context)
    if type(number) is not int or not 0 <= number < len(blobs):
        raise ValueError(f"there is no blob {number!r}")
    return blobs[number]


Blob = Annotated[bytes, PlainSerializer(_number), PlainValidator(_blob)]
"""Bytes that travel beside the JSON."""


class Language(Generic[M]):
    """The messages that one side says.

    Args:
        messages: makes what checks them, which takes a while, when the first is said.
    """

    def __init__(self, messages: Callable[[], TypeAdapter[M]]) -> None:
        self._make = messages

    @cached_property
    def _messages(self) -> TypeAdapter[M]:
        return self._make()

    def frame(self, messages: Iterable[M]) -> bytes:
        """Messages as one frame.

        Raises:
            ValueError: they hold more than a frame does.
        """
        blobs: list[bytes] = []
        values = [self._messages.dump_python(message, mode="json", context=blobs) for message in messages]
        # In ASCII, which takes names of files that are no text as well as anything.
        content = json.dumps([[len(blob) for blob in blobs], *values], separators=(",", ":")).encode("ascii")
        size = sum(map(len, blobs))
        if len(content) + size > MOST_BYTES:
            raise ValueError(f"a message of {len(content) + size:,} bytes is too large; at most {MOST_BYTES:,} can be")
        return b"".join((_HEADER.pack(MARK, VERSION, len(content), size), content, *blobs))

    def messages(self, sizes: "Sizes", body: bytes) -> list[M]:
        """The messages in what follows a header. Raises BadFrame."""
        try:
            lengths, *values = json.loads(body[: sizes.content])
            ends = list(accumulate(lengths, initial=sizes.content))
            if ends[-1] != len(body):
                raise BadFrame("blobs are missing")
            blobs = [body[start:end] for start, end in pairwise(ends)]
            return [self._messages.validate_python(value, context=blobs) for value in values]
        except BadFrame:
            raise
        except (ValidationError, ValueError, TypeError, RecursionError) as error:
            raise BadFrame(f"this is no message of version {VERSION}: {type(error).__name__}: {error}") from error


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a header says of the rest of its frame, in bytes."""

    content: int
    blobs: int

    @property
    def body(self) -> int:
        return self.content + self.blobs


def read_header(header: bytes) -> Sizes:
    """What a frame holds. Raises BadFrame."""
    mark, version, content, blobs = cast("tuple[bytes, int, int, int]", _HEADER.unpack(header))
    if mark != MARK:
        raise BadFrame("this is no frame")
    if version != VERSION:
        raise BadFrame(
            f"the other side speaks version {version} of the protocol, this one version {VERSION}: "
            "the code has changed since the server was started; start it again"
        )
    sizes = Sizes(content, blobs)
    if sizes.body > MOST_BYTES:
        raise BadFrame(f"a frame of {sizes.body:,} bytes is announced; at most {MOST_BYTES:,} can be")
    return sizes
