"""One entry of the store as a file: a safetensors file with the values' tree in its metadata and a checksum at its end.

Any reader of safetensors can open it. The last tensor, `checksum`, is the CRC-32 of all bytes before it: it guards
against damage, not against malice, and costs a small part of reading the file, where a cryptographic digest would cost
several times that.
"""

import json
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, cast

from graph.codec import Codec, Encoded, Tree, Unreadable
from graph.keys import Key

FORMAT = "latentloom-1"
CHECKSUM_BYTES = 4


@dataclass(frozen=True, slots=True)
class Label:
    """What an entry says of itself: enough to enter it into an index that has lost it."""

    key: Key
    class_name: str
    seconds: float
    created: float


def write_entry(file: BinaryIO, label: Label, encoded: Encoded) -> int:
    """Write an entry; returns its bytes. Raises OSError."""
    head = _head(label, encoded)
    checksum = zlib.crc32(head)
    _write(file, memoryview(head))
    nbytes = len(head)
    for block in encoded.blocks.values():
        checksum = zlib.crc32(block.data, checksum)
        _write(file, block.data)
        nbytes += block.data.nbytes
    _write(file, memoryview(struct.pack("<I", checksum)))
    return nbytes + CHECKSUM_BYTES


def read_entry(path: Path, key: Key, codec: Codec) -> tuple[Label, object, int]:
    """An entry's label, its value and its bytes. Raises OSError; Unreadable unless every byte is what was written."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head, header = _read_head(file, size)
        label, tree, spans = _parsed(header, size - len(head))
        if label.key != key:
            raise Unreadable("it is the entry of another key")
        checksum = zlib.crc32(head)
        filled: dict[str, Any] = {}
        for name, (dtype, shape, nbytes) in spans.items():
            try:
                filled[name], target = codec.allocate(name, dtype, shape, nbytes)
            except (ValueError, TypeError, RuntimeError, MemoryError) as error:
                raise Unreadable(str(error)) from error
            if target.nbytes != nbytes or file.readinto(target) != nbytes:
                raise Unreadable("it is cut off")
            checksum = zlib.crc32(target, checksum)
        if file.read() != struct.pack("<I", checksum):
            raise Unreadable("its checksum is wrong")
    return label, codec.decode(tree, filled), size


def read_label(path: Path) -> tuple[Label, int]:
    """An entry's label and its bytes; its content is not checked. Raises OSError, Unreadable."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head, header = _read_head(file, size)
        return _parsed(header, size - len(head))[0], size


def _head(label: Label, encoded: Encoded) -> bytes:
    metadata = {
        "format": FORMAT,
        "key": label.key.hex(),
        "class": label.class_name,
        "seconds": repr(label.seconds),
        "created": f"{label.created:.3f}",
        "tree": json.dumps(encoded.tree, allow_nan=False),
    }
    header: dict[str, Any] = {"__metadata__": metadata}
    at = 0
    for name, block in encoded.blocks.items():
        header[name] = {
            "dtype": block.dtype,
            "shape": list(block.shape),
            "data_offsets": [at, at + block.data.nbytes],
        }
        at += block.data.nbytes
    header["checksum"] = {"dtype": "U8", "shape": [CHECKSUM_BYTES], "data_offsets": [at, at + CHECKSUM_BYTES]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _write(file: BinaryIO, data: memoryview) -> None:
    rest = data.cast("B") if data.nbytes else data
    while rest.nbytes:
        rest = rest[file.write(rest) :]


def _read_head(file: BufferedReader, size: int) -> tuple[bytes, Tree]:
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > size - 8 - CHECKSUM_BYTES:
        raise Unreadable("it is cut off, or no entry of a store")
    text = file.read(length)
    try:
        return start + text, json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable("its header is damaged") from error


_Spans = Mapping[str, tuple[str, tuple[int, ...], int]]


def _parsed(header: Tree, available: int) -> tuple[Label, Tree, _Spans]:
    """The label, the tree, and type, shape and length of every block. Raises Unreadable."""
    try:
        metadata = header.pop("__metadata__")
        if metadata["format"] != FORMAT:
            raise Unreadable(f"it is of the format {metadata['format']!r}, this is {FORMAT!r}")
        seconds, created = float(metadata["seconds"]), float(metadata["created"])
        label = Label(bytes.fromhex(metadata["key"]), str(metadata["class"]), seconds, created)
        at = 0
        spans: dict[str, tuple[str, tuple[int, ...], int]] = {}
        for name, entry in cast("dict[str, Any]", header).items():
            begin, end = entry["data_offsets"]
            if begin != at or not begin <= end <= available:
                raise Unreadable("its header is damaged")
            spans[name] = (entry["dtype"], tuple(entry["shape"]), end - begin)
            at = end
        if at != available or spans.pop("checksum")[2] != CHECKSUM_BYTES or list(header)[-1] != "checksum":
            raise Unreadable("it is cut off, or longer than it was")
        return label, json.loads(metadata["tree"]), spans
    except Unreadable:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise Unreadable("its header is damaged") from error
