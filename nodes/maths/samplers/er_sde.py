"""Extended reverse-time SDE solvers: how much noise a step forgets is a function to be chosen, Cui et al. (2023)."""

import math
from dataclasses import replace

from nodes.maths.samplers.contract import Denoiser, NoiseSampler, State


def er_sde(
    state: State,
    denoise: Denoiser,
    sigma: float,
    sigma_next: float,
    noise: NoiseSampler,
    *,
    max_stage: float = 3,
    eta: float | None = None,
    s_noise: float = 1.0,
    points: float = 200,
) -> State:
    """ER-SDE-Solver-1, 2 and 3, Cui et al. (2023), algorithms 1 to 3: the prediction as a Taylor series in sigma.

    The noise scale is the one the authors recommend; `eta` takes sigma^(1 + eta) instead: the probability flow at 0,
    the reverse-time SDE at 1. The paper's integrals are Riemann sums of so many `points`.
    """
    x = state.x
    denoised = denoise(x, sigma)
    known, levels = (denoised, *reversed(state.history)), (sigma, *reversed(state.sigmas))
    kept, parts = int(max_stage) - 1, int(points)
    history, sigmas = tuple(reversed(known[:kept])), tuple(reversed(levels[:kept]))
    after = replace(state, x=denoised, history=history, sigmas=sigmas, denoised=denoised)
    if sigma_next == 0:
        return after
    scale = noise_scale(sigma_next, eta)
    ratio = scale / noise_scale(sigma, eta)
    x = ratio * x + (1 - ratio) * denoised
    if len(known) > 1:
        dt = sigma_next - sigma
        levels_between = [sigma_next - dt * k / parts for k in range(parts)]
        shares = [-dt / parts / noise_scale(level, eta) for level in levels_between]
        slope = (known[0] - known[1]) / (levels[0] - levels[1])
        x = x + (dt + scale * sum(shares)) * slope
        if len(known) > 2:
            before = (known[1] - known[2]) / (levels[1] - levels[2])
            curvature = 2 * (slope - before) / (levels[0] - levels[2])
            moment = sum(share * (level - sigma) for share, level in zip(shares, levels_between, strict=True))
            x = x + (dt**2 / 2 + scale * moment) * curvature
    variance = sigma_next**2 - (sigma * ratio) ** 2
    if variance > 0 and s_noise > 0:
        x = x + noise(sigma, sigma_next) * (math.sqrt(variance) * s_noise)
    return replace(after, x=x)


def noise_scale(sigma: float, eta: float | None) -> float:
    """The paper's phi; without eta its equation 21, sigma·(exp(sigma^0.3) + 10)."""
    return sigma * (math.exp(sigma**0.3) + 10.0) if eta is None else sigma ** (1 + eta)
