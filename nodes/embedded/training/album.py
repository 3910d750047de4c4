"""Albums: many drawn pictures in one array on disk, drawn once by parallel processes."""

import os
import random
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from .pictures import Pixels, draw, sample
from .vocabulary import Attributes

PAGE = 250


class Album(NamedTuple):
    """Which pictures: how many, how large, from which seed, how often a held-out pair, and whose handwriting."""

    name: str
    total: int
    size: int
    seed: int
    held_out: float = 0.0
    kept_digits: bool = False

    def attributes(self) -> list[Attributes]:
        """What each picture shows, without drawing it."""
        return [self._attributes(index) for index in range(self.total)]

    def _attributes(self, index: int) -> Attributes:
        rng = random.Random(f"{self.seed} {index}")
        return sample(rng, held_out=index % 100 < 100 * self.held_out)

    def page(self, start: int) -> UInt8[np.ndarray, "count height width 3"]:
        """The pictures from `start` on."""
        stop = min(self.total, start + PAGE)
        return np.stack([self.picture(index) for index in range(start, stop)])

    def picture(self, index: int) -> Pixels:
        return draw(self._attributes(index), self.seed + index, self.size, self.kept_digits)


def build(album: Album, folder: Path) -> Path:
    """The album's file, drawn if it is not there yet."""
    path = folder / f"{album.name}.npy"
    if path.exists():
        return path
    part = path.with_suffix(".part")
    shape = (album.total, album.size, album.size, 3)
    pictures = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
    for start, page in _pages(album):
        pictures[start : start + len(page)] = page
    pictures.flush()
    os.replace(part, path)
    return path


def _pages(album: Album) -> Iterator[tuple[int, UInt8[np.ndarray, "count height width 3"]]]:
    starts = range(0, album.total, PAGE)
    with get_context("spawn").Pool(os.cpu_count()) as pool:
        yield from zip(starts, pool.imap(album.page, starts), strict=True)


def load(path: Path) -> UInt8[np.ndarray, "count height width 3"]:
    """The pictures of an album, left on disk until looked at."""
    return np.load(path, mmap_mode="r")
