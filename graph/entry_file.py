"""One entry of the store as a file: a safetensors file with the values' tree in its metadata.

Any reader of safetensors can open it. Its last two tensors are the entry's own: `label` says what it is and what it
cost, `checksum` covers all bytes before it: the XXH3-128 of the XXH3-128 of every chunk. It guards against damage, not
against malice, and costs a part of reading the file, where a cryptographic digest would cost several times that.
Of an entry that is read nothing is looked at, its header neither, before all of it is checked. The header is the same
for all results of a kind, so it is parsed once.
"""

import errno
import json
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from pydantic_core import from_json
from xxhash import xxh3_128, xxh3_128_digest

from graph.codec import ALIGNMENT, Block, Codec, Encoded, Tree, Unreadable
from graph.keys import Key

FORMAT = "latentloom-2"
LABEL = struct.Struct("<32sdd")
CHECKSUM_BYTES = 16
OWN_BYTES = LABEL.size + CHECKSUM_BYTES
CHUNK_BYTES = 1 << 19
"""So much is read before it is checked, so that the processor still has it in its cache."""
LONG_BYTES = 1 << 14
"""Headers beyond this are not remembered."""


@dataclass(frozen=True, slots=True)
class Label:
    """What an entry says of itself: enough to enter it into an index that has lost it."""

    key: Key
    class_name: str
    seconds: float
    created: float


@dataclass(frozen=True, slots=True)
class _Header:
    """What entries with the same header have in common."""

    class_name: str
    tree: Tree
    spans: tuple[tuple[str, str, tuple[int, ...], int, int], ...]
    """Name, type, shape, first byte and the one after the last, counted from the header, of every block."""


def write_entry(file: BinaryIO, label: Label, encoded: Encoded) -> int:
    """Write an entry; returns its bytes. Raises OSError."""
    own = LABEL.pack(label.key, label.seconds, label.created)
    parts = [_head(label, encoded), *(block.data for block in encoded.blocks.values()), own]
    nbytes = sum(_write(file, memoryview(part)) for part in parts)
    return nbytes + _write(file, memoryview(_checksum(parts)))


def read_entry(path: str | Path, key: Key, codec: Codec) -> object:
    """The value of an entry. Raises OSError; Unreadable unless every byte is what was written."""
    content = _checked(path, codec)
    if content[-OWN_BYTES : len(key) - OWN_BYTES].tobytes() != key:
        raise Unreadable("it is the entry of another key")
    start = 8 + int.from_bytes(content[:8], "little")
    text = content[8:start].tobytes()
    header = _header(text) if len(text) > LONG_BYTES else _remembered_header(text)
    blocks: dict[str, Block] = {}
    for name, dtype, shape, first, last in header.spans:
        data = content[start + first : start + last]
        if first % ALIGNMENT or 2 * (last - first) < len(content):  # what is small must not keep what is large
            data = codec.room(last - first)
            data[:] = content[start + first : start + last]
        blocks[name] = Block(dtype, shape, data)
    return codec.decode(header.tree, blocks)


def read_label(path: Path) -> tuple[Label, int]:
    """An entry's label and its bytes; its content is not checked. Raises OSError, Unreadable."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 + OWN_BYTES or length > size - 8 - OWN_BYTES:
            raise Unreadable("it is cut off, or no entry of a store")
        header = _header(file.read(length))
        file.seek(-OWN_BYTES, os.SEEK_END)
        key, seconds, created = LABEL.unpack(file.read(LABEL.size))
        return Label(key, header.class_name, seconds, created), size


def _head(label: Label, encoded: Encoded) -> bytes:
    metadata = {"format": FORMAT, "class": label.class_name, "tree": _text(encoded.tree)}
    header: dict[str, Any] = {"__metadata__": metadata}
    at = 0
    own = [("label", "U8", (LABEL.size,), LABEL.size), ("checksum", "U8", (CHECKSUM_BYTES,), CHECKSUM_BYTES)]
    blocks = [(name, block.dtype, block.shape, block.data.nbytes) for name, block in encoded.blocks.items()]
    for name, dtype, shape, nbytes in (*blocks, *own):
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + nbytes]}
        at += nbytes
    text = _text(header).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def _text(tree: Tree) -> str:
    return json.dumps(tree, allow_nan=False, separators=(",", ":"))


def _header(text: bytes) -> _Header:
    """Raises Unreadable."""
    try:
        header = _parsed(text)
        metadata = header.pop("__metadata__")
        if metadata["format"] != FORMAT:
            raise Unreadable(f"it is of the format {metadata['format']!r}, this is {FORMAT!r}")
        del header["label"], header["checksum"]
        spans = [(name, span["dtype"], tuple(span["shape"]), *span["data_offsets"]) for name, span in header.items()]
        return _Header(metadata["class"], _parsed(metadata["tree"]), tuple(spans))
    except Unreadable:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise Unreadable(f"its header is damaged: {error}") from error


_remembered_header = lru_cache(maxsize=256)(_header)


def _parsed(text: str | bytes) -> Tree:
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError:  # nested more deeply than this one reads
        return json.loads(text)


def _write(file: BinaryIO, data: memoryview) -> int:
    rest = data.cast("B") if data.nbytes else data
    while rest.nbytes:
        rest = rest[file.write(rest) :]
    return data.nbytes


def _checksum(parts: Iterable[bytes | memoryview]) -> bytes:
    """Of what the parts are together."""
    digests: list[bytes] = []
    chunk, left = xxh3_128(), CHUNK_BYTES
    for part in map(memoryview, parts):
        while len(part) > left:
            chunk.update(part[:left])
            digests.append(chunk.digest())
            part, chunk, left = part[left:], xxh3_128(), CHUNK_BYTES
        chunk.update(part)
        left -= len(part)
    return xxh3_128_digest(b"".join([*digests, chunk.digest()]))


def _checked(path: str | Path, codec: Codec) -> memoryview:
    """All bytes of an entry, in memory that is aligned. Raises OSError; Unreadable if its checksum is another."""
    descriptor = os.open(path, _FLAGS)
    try:
        size = os.lseek(descriptor, 0, os.SEEK_END)
        end = size - CHECKSUM_BYTES
        if size < 8 + OWN_BYTES:
            raise Unreadable("it is cut off, or no entry of a store")
        if size > CHUNK_BYTES and _fadvise is not None:
            _fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)  # or the disk rests while a chunk is checked
        content = _room(size, codec)
        digests: list[bytes] = []
        for start in range(0, end, CHUNK_BYTES):
            stop = start + CHUNK_BYTES
            _read(descriptor, content[start : stop if stop < end else size], start)
            digests.append(xxh3_128_digest(content[start : min(stop, end)]))
    finally:
        os.close(descriptor)
    if content[end:].tobytes() != xxh3_128_digest(b"".join(digests)):
        raise Unreadable("its checksum is wrong")
    return content


def _room(size: int, codec: Codec) -> memoryview:
    try:
        return codec.room(size)
    except (MemoryError, ValueError) as error:  # also of a folder, whose size may be any number
        raise OSError(errno.ENOMEM, f"no memory for {size} bytes") from error


def _read(descriptor: int, memory: memoryview, at: int) -> None:
    """Fill memory with the bytes from a place on. Raises OSError, Unreadable."""
    if _preadv is not None:
        count = _preadv(descriptor, (memory,), at)
    else:
        os.lseek(descriptor, at, os.SEEK_SET)
        found = os.read(descriptor, len(memory))
        count = len(found)
        memory[:count] = found
    if count != len(memory):
        raise Unreadable("it is cut off")


_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0)
_preadv = getattr(os, "preadv", None)
_fadvise = getattr(os, "posix_fadvise", None)
