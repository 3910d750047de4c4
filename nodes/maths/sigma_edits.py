"""Cutting and bending noise levels that a schedule has given. All functions return new levels."""

import math
from collections.abc import Callable
from typing import Literal

import torch

from nodes.maths.model_sampling import NoiseLevels

Spacing = Literal["linear", "cosine", "sine"]

EASINGS: dict[Spacing, Callable[[float], float]] = {
    "linear": lambda x: x,
    "cosine": lambda x: math.sin(x * math.pi / 2),
    "sine": lambda x: 1 - math.cos(x * math.pi / 2),
}
"""How far from one level to the next, by the share of the way; the names are those of the reference."""


def slice_sigmas(
    sigmas: NoiseLevels, start: int = 0, end: int | None = None, force_last_zero: bool = False
) -> NoiseLevels:
    """The noise levels of KSamplerAdvanced from step `start` to step `end`; empty when no step is left.

    `force_last_zero` makes a schedule that was cut short end with 0, so that no noise is left over.
    """
    if end is not None and end < len(sigmas) - 1:
        sigmas = sigmas[: max(end, 0) + 1]
        if force_last_zero:
            sigmas = torch.cat([sigmas[:-1], sigmas.new_zeros(1)])
    return sigmas[max(start, 0) :] if max(start, 0) < len(sigmas) - 1 else sigmas[:0]


def split_sigmas(sigmas: NoiseLevels, step: int) -> tuple[NoiseLevels, NoiseLevels]:
    """The levels up to a step and those from it; the level between them is in both."""
    return sigmas[: max(step, 0) + 1], sigmas[max(step, 0) :]


def split_sigmas_denoise(sigmas: NoiseLevels, denoise: float) -> tuple[NoiseLevels, NoiseLevels]:
    """The levels before the last share `denoise` of the steps, and those of that share."""
    steps = max(len(sigmas) - 1, 0)
    last = min(max(round(steps * denoise), 0), steps)
    # With no step in the low part the reference's slice [:-0] leaves the high part empty; so here.
    return (sigmas[:-last] if last else sigmas[:0]), sigmas[-(last + 1) :]


def flip_sigmas(sigmas: NoiseLevels) -> NoiseLevels:
    """Rising levels, to go from a picture to its noise; a first level of 0 becomes 0.0001, where a step can start."""
    flipped = sigmas.flip(0)
    return torch.cat([flipped[:1].where(flipped[:1] != 0, 0.0001), flipped[1:]])


def set_first_sigma(sigmas: NoiseLevels, sigma: float) -> NoiseLevels:
    """The same levels after another first one."""
    return torch.cat([sigmas.new_full((min(len(sigmas), 1),), sigma), sigmas[1:]])


def extend_sigmas(sigmas: NoiseLevels, steps: int, start: float, end: float, spacing: Spacing) -> NoiseLevels:
    """Each step that starts at a level from `start` down to `end`, divided into `steps` steps."""
    between = torch.tensor([EASINGS[spacing](i / steps) for i in range(1, steps)])
    parts: list[NoiseLevels] = []
    for i in range(len(sigmas) - 1):
        parts.append(sigmas[i : i + 1])
        if end <= sigmas[i] <= start:
            parts.append(sigmas[i] + between * (sigmas[i + 1] - sigmas[i]))
    return torch.cat([*parts, sigmas[-1:]])
