"""Tensors in pickles: which there are, and their numbers. Nothing in a pickle is run.

torch's restricted reader makes tensors and plain containers and refuses everything else. What else training programs
have left in well-known checkpoints is replaced by something that does nothing.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from nodes.codecs import DTYPES
from nodes.model_errors import ModelError
from nodes.pickles import permitted
from nodes.safetensors_header import AGAIN, Header, TensorEntry

WRAPPINGS = ("state_dict", "model_state_dict", "params_ema", "params", "string_to_param")
"""Under which keys the tensors are, where beside them there are things of no use; the first counts."""
DEPTH = 8
"""So many containers stand inside each other at most."""
LONGEST_FACT = 10_000
"""Of what is told beside tensors, such as a hypernetwork's layers, in letters."""
_CODES: Mapping[torch.dtype, str] = {getattr(torch, name): code for code, name in DTYPES.items()}


class _Nothing:
    """Takes the place of an object that is of no use here, and is never asked anything."""

    def __init__(self, *args: object, **named: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


class _Parameters:
    """Takes the place of torch's ParameterDict, in which the first textual inversions were kept."""

    def __init__(self) -> None:
        self.found: object = {}

    def __setstate__(self, state: object) -> None:
        self.found = cast("dict[object, object]", state).get("_parameters", {}) if isinstance(state, dict) else {}


_REPLACED = [
    (_Parameters, "torch.nn.modules.container.ParameterDict"),
    *(
        (_Nothing, name)
        for name in (
            "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
            "numpy.core.multiarray.scalar",
            "numpy._core.multiarray.scalar",
            "numpy.dtype",
        )
    ),
]


def pickled_header(path: Path) -> Header:
    """The tensors in a pickle, without their numbers, and what is told beside them. Raises ModelError."""
    permitted(path)
    try:
        stat = path.stat()
    except OSError as error:
        raise ModelError(path, f"the file cannot be read ({error.strerror or error})") from error
    return _header(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _header(path: Path, size: int, changed: int) -> Header:
    content = _read(path, "meta")
    entries: dict[str, TensorEntry] = {}
    start = 0
    for name, tensor in _tensors(content):
        if tensor.dtype not in _CODES or tensor.layout is not torch.strided:
            raise ModelError(path, f"{name!r} is of the type {tensor.dtype} ({tensor.layout}), which is not known")
        end = start + tensor.numel() * tensor.element_size()
        entries[name] = TensorEntry(dtype=_CODES[tensor.dtype], shape=tuple(tensor.shape), data_offsets=(start, end))
        start = end
    return Header(entries, dict(_facts(content)))


def pickled_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a pickle by name, mapped from the file where its form allows that. Raises ModelError."""
    permitted(path)
    return dict(_tensors(_read(path, "cpu")))


def _read(path: Path, device: str) -> object:
    load = cast(Any, torch).load
    try:
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
        with torch.serialization.safe_globals(cast(Any, _REPLACED)):
            # Older files than torch 1.6 writes are no archives, and cannot be mapped.
            return load(path, map_location=device, weights_only=True, mmap=zipped)
    except Exception as error:  # what is damaged or hostile may fail in any way
        found = re.search(r"(?:GLOBAL|function|callable) ([\w.]+)", str(error))
        if found:
            reason = f"it holds more than numbers: {found[1]}, which is not run and not read"
            raise ModelError(path, reason, "Take the .safetensors file of the same model.") from error
        # torch goes on with advice to read it in a way that runs what is in it.
        said = str(error).strip().partition("\n")[0].partition(". In PyTorch")[0] or type(error).__name__
        raise ModelError(path, f"not a file of weights, or damaged ({said})", AGAIN) from error


def _tensors(content: object) -> Iterator[tuple[str, Tensor]]:
    """The tensors of nested containers, named by the way to them; of those wrapped in a file, these alone."""
    yield from _below("", _unwrapped(content), DEPTH)


def _unwrapped(content: object) -> object:
    if isinstance(content, dict):
        known = cast("dict[object, object]", content)
        return next((known[name] for name in WRAPPINGS if isinstance(known.get(name), dict | _Parameters)), known)
    return content


def _below(name: str, item: object, depth: int) -> Iterator[tuple[str, Tensor]]:
    if isinstance(item, Tensor):
        yield name or "tensor", item.detach()
    elif isinstance(item, _Parameters):
        yield from _below(name, item.found, depth)
    elif isinstance(item, dict | list | tuple) and depth:
        found = cast("dict[object, object] | list[object] | tuple[object, ...]", item)
        for key, value in found.items() if isinstance(found, dict) else enumerate(found):
            yield from _below(f"{name}.{key}" if name else str(key), value, depth - 1)


def _facts(content: object) -> Iterator[tuple[str, str]]:
    """What is told in words and numbers beside the tensors; other than texts as JSON."""
    for key, value in cast("dict[object, object]", content).items() if isinstance(content, dict) else ():
        if isinstance(value, str):
            said = value
        elif isinstance(value, bool | int | float) or _is_plain(value):
            said = json.dumps(value)
        else:
            continue
        if len(said) <= LONGEST_FACT:
            yield str(key), said


def _is_plain(value: object) -> bool:
    items = cast("list[object]", value) if isinstance(value, list) else [None]
    return all(isinstance(item, str | bool | int | float) for item in items)
