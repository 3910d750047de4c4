"""The header of a safetensors file: which tensors it holds, and whether the file is whole. Reads no weights."""

import json
from math import prod
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from nodes.model_errors import ModelError

AGAIN = "Copy or download the file again."
LARGEST_HEADER = 100_000_000

DTYPE_BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16}
"""Other types (8 bits and fewer) are not checked for their size."""

Size = Annotated[int, Field(ge=0)]


class TensorEntry(BaseModel):
    """One tensor: its type, its shape, and where it lies behind the header."""

    dtype: str
    shape: tuple[Size, ...]
    data_offsets: tuple[Size, Size]

    @property
    def nbytes(self) -> int:
        return self.data_offsets[1] - self.data_offsets[0]


_ENTRIES: TypeAdapter[dict[str, TensorEntry]] = TypeAdapter(dict[str, TensorEntry])


def read_header(path: Path) -> dict[str, TensorEntry]:
    """The tensors of a safetensors file. Raises ModelError when it is not one or is not whole."""
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
    entries = _parse(path, text)
    _check_offsets(path, entries, size - 8 - length)
    return entries


def _broken_length(length: int, size: int) -> str:
    return f"not a safetensors file, or cut off: its header should have {length:,} bytes, the whole file has {size:,}"


def _parse(path: Path, text: bytes) -> dict[str, TensorEntry]:
    try:
        header = json.loads(text)
        if isinstance(header, dict):
            # JSON has no types yet: the next line checks what is left.
            header.pop("__metadata__", None)  # pyright: ignore[reportUnknownMemberType]
        return _ENTRIES.validate_python(header)
    except (ValueError, ValidationError, RecursionError) as error:
        raise ModelError(path, "not a safetensors file: its header is not a table of tensors", AGAIN) from error


def _check_offsets(path: Path, entries: dict[str, TensorEntry], available: int) -> None:
    for name, entry in entries.items():
        start, end = entry.data_offsets
        if end > available:
            raise ModelError(path, f"the file is cut off: {name!r} ends at byte {end:,} of {available:,}", AGAIN)
        bits = DTYPE_BITS.get(entry.dtype)
        if start > end or (bits is not None and prod(entry.shape) * bits != (end - start) * 8):
            raise ModelError(path, f"the size of {name!r} does not fit its shape {list(entry.shape)}", AGAIN)
