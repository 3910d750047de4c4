"""Adherence: how often the pictures the model makes show what their prompts say, according to the judge.

`python -m nodes.embedded.training.adherence` measures the shipped checkpoint.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from .. import JUDGE, LOOMLET
from . import judge
from .captions import plain
from .pictures import draw, sample
from .vocabulary import SLOTS, Attributes, is_held_out

Generate = Callable[[list[str], list[int], int], UInt8[np.ndarray, "count height width 3"]]
Rebuild = Callable[[UInt8[np.ndarray, "count height width 3"]], UInt8[np.ndarray, "count height width 3"]]


class Category(NamedTuple):
    """A kind of prompt: its share of all, the layouts it draws from, and whether its pairs are held out."""

    name: str
    share: float
    layouts: tuple[str, ...]
    held_out: bool = False
    size: int = 128


CATEGORIES = (
    Category("known combinations", 0.25, ("icon", "scene")),
    Category("held-out combinations", 0.25, ("icon", "scene"), held_out=True),
    Category("digits", 0.15, ("digit",)),
    Category("two objects", 0.2, ("beside", "stacked")),
    Category("192 pixels", 0.15, ("icon", "scene", "digit"), size=192),
)


class Score(NamedTuple):
    """The share of right answers: per attribute where the prompt names it, and all of them together."""

    name: str
    asked: int
    attributes: dict[str, float]
    everything: float

    def line(self) -> str:
        parts = " ".join(f"{name} {100 * value:.1f}" for name, value in self.attributes.items())
        return f"{self.name:<34} n={self.asked:<4} everything right {100 * self.everything:5.1f} %   {parts}"


class Report(NamedTuple):
    """The judge's own accuracy on drawn pictures, and the adherence of generated ones."""

    judge: list[Score]
    adherence: list[Score]

    def text(self) -> str:
        parts = ["The judge on pictures drawn by code:", *(score.line() for score in self.judge)]
        return "\n".join([*parts, "Generated pictures, as the judge sees them:", *(s.line() for s in self.adherence)])


def score(name: str, wanted: list[Attributes], right: Bool[np.ndarray, "count slots"]) -> Score:
    """The share of right answers for each attribute that is asked for at all, and for whole prompts."""
    asked = np.array([[bool(value) for value in attributes] for attributes in wanted])
    shares = {
        slot: float(right[asked[:, i], i].mean())
        for i, slot in enumerate(SLOTS)
        if slot != "layout" and asked[:, i].any()
    }
    return Score(name, len(wanted), shares, float(right.all(axis=1).mean()))


def wishes(category: Category, count: int, seed: int) -> list[Attributes]:
    """What to ask for: `count` pictures of the category, always the same for a seed."""
    rng = random.Random(f"{seed} {category.name}")
    return [sample(rng, category.layouts[i % len(category.layouts)], category.held_out) for i in range(count)]


def judged(name: str, wanted: list[Attributes], pictures: UInt8[np.ndarray, "count height width 3"]) -> Score:
    return score(name, wanted, judge.correct(judge.load(JUDGE).name(pictures), wanted).astype(bool))


def measure_judge(rebuild: Rebuild | None, count: int, seed: int) -> list[Score]:
    """The judge on drawn pictures in the model's handwriting, as drawn and as the autoencoder gives them back."""
    rng = random.Random(f"judge {seed}")
    wanted = [sample(rng, held_out=i % 4 == 0) for i in range(count)]
    pictures = np.stack([draw(attributes, 10_000 + seed + i) for i, attributes in enumerate(wanted)])
    held = np.array([is_held_out(attributes) for attributes in wanted])
    chosen = [attributes for attributes, out in zip(wanted, held, strict=True) if out]
    scores = [judged("drawn", wanted, pictures), judged("drawn, held-out combinations", chosen, pictures[held])]
    return [*scores, judged("through the autoencoder", wanted, rebuild(pictures))] if rebuild else scores


def measure(
    generate: Generate, count: int = 600, seeds: tuple[int, ...] = (1, 2, 3), rebuild: Rebuild | None = None
) -> Report:
    """Ask for `count` pictures in all, a share of them per category and seed, and judge them.

    `generate` takes prompts, one seed for each, and the side in pixels. `rebuild` sends pictures through the
    autoencoder; without it the judge is tested on plain drawings only.
    """
    scores: list[Score] = []
    for category in CATEGORIES:
        each = max(1, round(count * category.share / len(seeds)))
        wanted = [attributes for seed in seeds for attributes in wishes(category, each, seed)]
        noise = [1000 * seed + i for seed in seeds for i in range(each)]
        pictures = generate([plain(attributes) for attributes in wanted], noise, category.size)
        scores.append(judged(category.name, wanted, pictures))
    return Report(measure_judge(rebuild, count, seeds[0]), scores)


def shipped(count: int = 600, folder: Path = LOOMLET) -> Report:
    """Measure the checkpoint of the package."""
    from .autoencoder import rebuilt
    from .painter import Painter

    painter = Painter.shipped(folder)
    return measure(painter.paint, count, rebuild=lambda pictures: rebuilt(painter.autoencoder, pictures))


if __name__ == "__main__":
    print(shipped().text())
