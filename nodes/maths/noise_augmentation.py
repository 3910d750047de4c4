"""Noise on what CLIP says of a picture, as unCLIP networks are trained with it, Ramesh et al. (2022)."""

import math
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

STEPS = 1000
"""Levels of noise."""
LARGEST_BETA = 0.999

Embedding = Float[Tensor, "1 width"]


def noise_level(share: float) -> int:
    """The level, from 0 to 999, that is a share (0…1) of all."""
    return round((STEPS - 1) * share)


@lru_cache(maxsize=64)
def kept_share(level: int) -> float:
    """How much of the variance is left at a level, on the squared cosine schedule of Nichol and Dhariwal (2021)."""

    def cosine(step: int) -> float:
        return math.cos((step / STEPS + 0.008) / 1.008 * math.pi / 2) ** 2

    return math.prod(1 - min(1 - cosine(step + 1) / cosine(step), LARGEST_BETA) for step in range(level + 1))


def augmented(
    embedding: Embedding, mean: Embedding, spread: Embedding, level: int, seed: int
) -> Float[Tensor, "1 numbers"]:
    """The embedding with noise where all of them are normal, and the level in sines as long as the embedding."""
    noise = torch.randn(embedding.shape, generator=torch.Generator().manual_seed(seed))
    kept = kept_share(level)
    noisy = (embedding - mean) / spread * kept**0.5 + noise * (1 - kept) ** 0.5
    return torch.cat([noisy * spread + mean, _sines(level, embedding.shape[1])], 1)


def _sines(level: int, width: int) -> Float[Tensor, "1 {width}"]:
    half = width // 2
    angles = level * torch.exp(torch.arange(half) * (-math.log(10000) / half))
    return torch.cat([angles.cos(), angles.sin()])[None]
