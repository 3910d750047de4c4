"""Handwritten digits from scikit-learn's bundled set, half for the model and half for its judge."""

from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import Float

Glyphs = list[Float[np.ndarray, "count 8 8"]]


@cache
def glyphs(kept: bool = False) -> Glyphs:
    """Per digit its 8 by 8 glyphs, from 0 to 1; with `kept` the judge's, which the model never sees."""
    try:
        datasets: Any = import_module("sklearn.datasets")
    except ModuleNotFoundError as error:
        raise SystemExit(
            "Drawing handwritten digits needs scikit-learn: install latentloom with its extra [train]."
        ) from error
    loaded: Any = datasets.load_digits()
    images = np.asarray(loaded.images, np.float32) / 16
    labels = np.asarray(loaded.target)
    mine = (np.arange(len(labels)) % 2 == 0) == kept
    chosen = [images[mine & (labels == digit)] for digit in range(10)]
    means = np.stack([some.mean(axis=0).ravel() for some in chosen])
    return [_legible(some, means, digit) for digit, some in enumerate(chosen)]


def _legible(
    glyphs: Float[np.ndarray, "count 8 8"], means: Float[np.ndarray, "10 64"], digit: int
) -> Float[np.ndarray, "some 8 8"]:
    """The clearest four tenths, by nearness to this digit's average; some of the rest nobody can read."""
    distances = np.linalg.norm(glyphs.reshape(len(glyphs), 1, -1) - means, axis=-1)
    own = distances[:, digit]
    margin = np.delete(distances, digit, axis=1).min(axis=1) - own
    return glyphs[margin >= np.quantile(margin, 0.6)]
