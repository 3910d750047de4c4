"""The header of a safetensors file: which tensors it holds, and whether the file is whole. Reads no weights."""

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from nodes.model_errors import ModelError

AGAIN = "Copy or download the file again."
LARGEST_HEADER = 100_000_000
LONGEST_NAME = 120
"""So much of a name is shown."""

DTYPE_BITS = {
    **dict.fromkeys(("C64", "F64", "I64", "U64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
}

Size = Annotated[int, Field(ge=0)]


class TensorEntry(BaseModel):
    """One tensor: its type, its shape, and where it lies behind the header."""

    dtype: str
    shape: tuple[Size, ...]
    data_offsets: tuple[Size, Size]

    @property
    def nbytes(self) -> int:
        return self.data_offsets[1] - self.data_offsets[0]


@dataclass(frozen=True, slots=True)
class Header:
    """The tensors of a file by name, and what its maker wrote beside them."""

    entries: dict[str, TensorEntry]
    metadata: dict[str, str]


_ENTRIES: TypeAdapter[dict[str, TensorEntry]] = TypeAdapter(dict[str, TensorEntry])
_METADATA: TypeAdapter[dict[str, str]] = TypeAdapter(dict[str, str])


def read_header(path: Path) -> dict[str, TensorEntry]:
    """The tensors of a safetensors file. Raises ModelError when it is not one or is not whole."""
    return read_whole_header(path).entries


def read_whole_header(path: Path) -> Header:
    """The tensors of a safetensors file and its metadata. Raises ModelError when it is not one or is not whole."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8:
                raise ModelError(path, f"the file has {size} bytes, too few for a safetensors file", AGAIN)
            if length > min(size - 8, LARGEST_HEADER):
                raise ModelError(path, _broken_length(length, size), AGAIN)
            text = file.read(length)
    except OSError as error:
        raise ModelError(path, f"the file cannot be read ({error.strerror or error})") from error
    header = _parse(path, text)
    _check_offsets(path, header.entries, size - 8 - length)
    return header


def _broken_length(length: int, size: int) -> str:
    return f"not a safetensors file, or cut off: its header should have {length:,} bytes, the whole file has {size:,}"


def _parse(path: Path, text: bytes) -> Header:
    try:
        header = json.loads(text)
        metadata = header.pop("__metadata__", None) if isinstance(header, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # json gives anything; pydantic looks at it next
        return Header(_ENTRIES.validate_python(header), _METADATA.validate_python(metadata or {}))
    except (ValueError, ValidationError, RecursionError) as error:
        raise ModelError(
            path, f"not a safetensors file: its header is not a table of tensors{_where(error)}", AGAIN
        ) from error


def _where(error: Exception) -> str:
    """Which entry is wrong, where one is."""
    if not isinstance(error, ValidationError) or not error.errors()[0]["loc"]:
        return ""
    first = error.errors()[0]
    return f" ({'.'.join(map(str, first['loc']))[:LONGEST_NAME]}: {first['msg']})"


def _check_offsets(path: Path, entries: dict[str, TensorEntry], available: int) -> None:
    before, last = 0, ""
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        start, end = entry.data_offsets
        shown = name[:LONGEST_NAME]
        if end > available:
            raise ModelError(path, f"the file is cut off: {shown!r} ends at byte {end:,} of {available:,}", AGAIN)
        bits = DTYPE_BITS.get(entry.dtype)
        if bits is None:
            known = ", ".join(DTYPE_BITS)
            raise ModelError(
                path, f"{shown!r} is of the type {entry.dtype[:LONGEST_NAME]!r}, not one of {known}", AGAIN
            )
        if start > end or prod(entry.shape) * bits != (end - start) * 8:
            raise ModelError(path, f"the size of {shown!r} does not fit its shape {list(entry.shape)}", AGAIN)
        if start < before:
            raise ModelError(path, f"{shown!r} lies over {last!r}: both claim the same bytes", AGAIN)
        before, last = end, shown
