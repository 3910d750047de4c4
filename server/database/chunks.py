"""Long lists in pieces that a statement has room for."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

CHUNK = 1000
"""Parameters of one statement; both databases allow some 32,000."""

T = TypeVar("T")


def chunks(items: Sequence[T], size: int = CHUNK) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
