"""UniPC: a predictor, and a corrector that uses the next evaluation anyway, Zhao et al. (2023)."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from nodes.maths.model_sampling import Latents
from nodes.maths.samplers.contract import Denoiser, NoiseSampler, State
from nodes.maths.samplers.terms import combined, phi_1, step_in_t

LAST_SIGMA = 0.001
"""Where the reference ends instead of at 0, which has no logarithm."""

HIGHEST_ORDER = 3


def uni_pc(
    state: State, denoise: Denoiser, sigma: float, sigma_next: float, noise: NoiseSampler, *, bh2: bool = False
) -> State:
    """UniPC of order 3 on the prediction of the latent, Zhao et al. (2023), algorithms 5 and 6, B(h) = h or e^h - 1.

    Lower orders at both ends; what lies ahead tells. x is what the predictor says, and is corrected when the next step
    has evaluated there.
    """
    denoised = denoise(state.x, sigma)
    # What is kept of earlier steps: where the last one began, and the predictions up to there.
    known, levels = (*state.history[1:], denoised), (*state.sigmas, sigma)
    remaining = 1 + len(state.ahead)
    x = state.x
    if state.history:
        order = min(len(state.sigmas), HIGHEST_ORDER, remaining + 1)
        x = _advance(state.history[0], known[:-1], levels, order, bh2, denoised)
    order = min(len(levels), HIGHEST_ORDER, remaining)
    further = _advance(x, known, (*levels, sigma_next or LAST_SIGMA), order, bh2)
    history, sigmas = (x, *known[-HIGHEST_ORDER:]), levels[-HIGHEST_ORDER:]
    return replace(state, x=further, history=history, sigmas=sigmas, denoised=denoised)


def _advance(
    x: Latents,
    known: Sequence[Latents],
    levels: Sequence[float],
    order: int,
    bh2: bool,
    arrived: Latents | None = None,
) -> Latents:
    """From the last level but one to the last, with the `order` newest of the predictions known before it.

    Once the prediction at the last level has arrived, it is one more.
    """
    sigma, sigma_next = levels[-2:]
    base, h = known[-1], step_in_t(sigma, sigma_next)
    places = [-step_in_t(level, sigma) / h for level in reversed(levels[-order - 1 : -2])]
    changes = [(earlier - base) / place for earlier, place in zip(reversed(known[-order:-1]), places, strict=True)]
    if arrived is not None:
        places, changes = [*places, 1.0], [*changes, arrived - base]
    x = sigma_next / sigma * x - math.expm1(-h) * base
    if not changes:
        return x
    return x - combined(_weights(places, -h, math.expm1(-h) if bh2 else -h), changes)


def _weights(places: Sequence[float], z: float, scale: float) -> list[float]:
    """How much the changes from the base count, given where they were taken in units of the step: equation 9.

    B(h) only matters where there is one, which then counts half of it.
    """
    if len(places) == 1:
        return [scale / 2]
    phi, factorial, moments = phi_1(z) - 1, 1.0, list[float]()
    for k in range(2, len(places) + 2):
        moments.append(phi * factorial)
        factorial *= k
        phi = phi / z - 1 / factorial
    powers = torch.tensor([[place**k for place in places] for k in range(len(places))], dtype=torch.float64)
    solved = cast(Tensor, cast(Any, torch.linalg).solve(powers, torch.tensor(moments, dtype=torch.float64)))
    return [weight.item() for weight in solved]
