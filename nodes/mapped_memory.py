"""Memory of weights that are mapped from files: once read, it counts as this process's, until it is given back.

What is given back stays in the system's cache of the file, and is there again when it is next touched.
"""

import ctypes
import sys
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

MAPS = Path("/proc/self/maps")
SUFFIX = ".safetensors"
MADV_DONTNEED = 4
"""As Linux has it."""


class Span(NamedTuple):
    """Addresses, from the first on and up to the last."""

    start: int
    end: int


def mapped_spans(tensors: Iterable[Tensor]) -> tuple[Span, ...]:
    """The mappings of files of weights that tensors lie in; none where the system does not tell.

    Whoever gives them back must know that nobody writes to these tensors: what was written would be lost.
    """
    starts = sorted({tensor.data_ptr() for tensor in tensors if tensor.device.type == "cpu"})

    def holds_one(span: Span) -> bool:
        at = bisect_left(starts, span.start)
        return at < len(starts) and starts[at] < span.end

    return tuple(filter(holds_one, _mappings()))


def give_back(spans: Sequence[Span]) -> None:
    """Have memory that is mapped from files be no longer this process's."""
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):
        advise = ctypes.CDLL(None).madvise
        for span in spans:
            advise(ctypes.c_void_p(span.start), ctypes.c_size_t(span.end - span.start), MADV_DONTNEED)


def _mappings() -> Iterator[Span]:
    """Those of files of weights."""
    if sys.platform != "linux":
        return
    with suppress(OSError):
        for line in MAPS.read_text(errors="replace").splitlines():
            if line.endswith(SUFFIX):
                start, end = line.split(" ", 1)[0].split("-")
                yield Span(int(start, 16), int(end, 16))
