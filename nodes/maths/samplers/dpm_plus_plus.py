"""DPM-Solver++: exponential integrators in t = -log sigma on the prediction, Lu et al. (2022), and their SDE forms."""

import math
from dataclasses import replace

from nodes.maths.model_sampling import Latents
from nodes.maths.samplers.contract import Denoiser, NoiseSampler, State
from nodes.maths.samplers.exploding import exploded, imploded
from nodes.maths.samplers.terms import (
    ancestral,
    exponential_step,
    flow_ancestral,
    phi_1,
    phi_2,
    scalars,
    step_in_t,
    step_ratio,
    to_d,
    to_sigma,
    to_t,
)

BELOW_ONE = 0.9999
"""Where the reference looks in the middle of a step from a flow's level 1, which has no middle."""


def dpmpp_2s_ancestral(
    state: State,
    denoise: Denoiser,
    sigma: float,
    sigma_next: float,
    noise: NoiseSampler,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    flow: bool = False,
) -> State:
    """DPM-Solver++(2S) below the next sigma, and noise back up to it, Lu et al. (2022), algorithm 1."""
    x = state.x
    denoised = denoise(x, sigma)
    s, s_next = scalars(x, sigma, sigma_next)
    if sigma_next == 0:
        return replace(state, x=x + to_d(x, sigma, denoised) * (s_next - s), denoised=denoised)
    if flow:
        down, scale, up = flow_ancestral(sigma, sigma_next, eta)
        inner = BELOW_ONE if sigma >= 1.0 else imploded(math.sqrt(exploded(sigma) * exploded(down)))
        denoised_2 = denoise(_flow_step(x, denoised, sigma, inner), inner)
        x = _flow_step(x, denoised_2, sigma, down) * scale + noise(sigma, sigma_next) * (up * s_noise)
        return replace(state, x=x, denoised=denoised)
    sigma_down, sigma_up = ancestral(s, s_next, eta)
    t, t_down = to_t(s), to_t(sigma_down)
    denoised_2 = denoised
    if sigma_down > 0:  # the way down to 0 has no middle
        t_mid = t + (t_down - t) / 2
        denoised_2 = denoise(exponential_step(x, denoised, t, t_mid), to_sigma(t_mid).item())
    x = exponential_step(x, denoised_2, t, t_down) + noise(sigma, sigma_next) * (sigma_up * s_noise)
    return replace(state, x=x, denoised=denoised)


def _flow_step(x: Latents, denoised: Latents, sigma: float, sigma_next: float) -> Latents:
    """The exact solution on a flow while the prediction is constant: a straight line."""
    ratio = sigma_next / sigma
    return ratio * x + ((1.0 - sigma_next) - (1.0 - sigma) * ratio) * denoised


def dpmpp_sde(
    state: State,
    denoise: Denoiser,
    sigma: float,
    sigma_next: float,
    noise: NoiseSampler,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    r: float = 0.5,
) -> State:
    """DPM-Solver++ (stochastic): one Brownian path's noise at an inner point and at the end, Crowson (2022).

    The inner point lies at the share r of the step in t, by default in the middle. Raises ValueError for r 0.
    """
    if not r > 0:
        raise ValueError(f"r {r:g}: the inner point of a step has to lie within it; 0.5 is usual")
    x = state.x
    denoised = denoise(x, sigma)
    s, s_next = scalars(x, sigma, sigma_next)
    if sigma_next == 0:
        return replace(state, x=x + to_d(x, sigma, denoised) * (s_next - s), denoised=denoised)
    t, t_next = to_t(s), to_t(s_next)
    s_mid = to_sigma(t + (t_next - t) * r)
    sigma_mid = s_mid.item()

    sigma_down, sigma_up = ancestral(s, s_mid, eta)
    x_2 = exponential_step(x, denoised, t, to_t(sigma_down)) + noise(sigma, sigma_mid) * (sigma_up * s_noise)
    denoised_2 = denoise(x_2, sigma_mid)

    # At r = 1/2 only the inner prediction counts.
    mixed = denoised_2 if r == 0.5 else (1 - 1 / (2 * r)) * denoised + 1 / (2 * r) * denoised_2
    sigma_down, sigma_up = ancestral(s, s_next, eta)
    x = exponential_step(x, mixed, t, to_t(sigma_down)) + noise(sigma, sigma_next) * (sigma_up * s_noise)
    return replace(state, x=x, denoised=denoised)


def dpmpp_2m(state: State, denoise: Denoiser, sigma: float, sigma_next: float, noise: NoiseSampler) -> State:
    """DPM-Solver++(2M), Lu et al. (2022), algorithm 2; of first order at both ends."""
    x = state.x
    denoised = extrapolated = denoise(x, sigma)
    s, s_next = scalars(x, sigma, sigma_next)
    if state.history and sigma_next > 0:
        r = step_ratio(state, s, s_next)
        extrapolated = (1 + 1 / (2 * r)) * denoised - (1 / (2 * r)) * state.history[-1]
    x = exponential_step(x, extrapolated, to_t(s), to_t(s_next))
    return replace(state, x=x, history=(denoised,), sigmas=(sigma,), denoised=denoised)


def dpmpp_2m_sde(
    state: State,
    denoise: Denoiser,
    sigma: float,
    sigma_next: float,
    noise: NoiseSampler,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    heun: bool = False,
) -> State:
    """SDE-DPM-Solver++(2M), Lu et al. (2022), section 4, corrected by the midpoint or (`heun`) by both ends."""
    x = state.x
    denoised = denoise(x, sigma)
    after = replace(state, x=denoised, history=(denoised,), sigmas=(sigma,), denoised=denoised)
    if sigma_next == 0:
        return after
    s, s_next = scalars(x, sigma, sigma_next)
    h = to_t(s_next) - to_t(s)
    fresh = -(-h - eta * h).expm1()  # how much of the next x is prediction
    x = s_next / s * (-eta * h).exp() * x + fresh * denoised
    if state.history:
        correction = 1 - fresh / (h + eta * h) if heun else 0.5 * fresh
        x = x + correction / step_ratio(state, s, s_next) * (denoised - state.history[-1])
    if eta > 0:
        x = x + noise(sigma, sigma_next) * s_next * (-(-2 * eta * h).expm1()).sqrt() * s_noise
    return replace(after, x=x)


def dpmpp_3m_sde(
    state: State,
    denoise: Denoiser,
    sigma: float,
    sigma_next: float,
    noise: NoiseSampler,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> State:
    """SDE-DPM-Solver++(3M): slope and curvature from the last three predictions, Crowson (2023).

    The curvature counts half of what interpolation would give it, as in the multistep DPM-Solver-3 of Lu et al. (2022).
    """
    x = state.x
    denoised = denoise(x, sigma)
    known, levels = (*state.history, denoised)[-3:], (*state.sigmas, sigma)[-3:]
    after = replace(state, x=denoised, history=known[-2:], sigmas=levels[-2:], denoised=denoised)
    if sigma_next == 0:
        return after
    h = step_in_t(sigma, sigma_next)
    z = -h * (1 + eta)
    x = sigma_next / sigma * math.exp(-eta * h) * x - math.expm1(z) * denoised
    if len(known) > 1:
        r = step_in_t(levels[-2], levels[-1]) / h
        slope = (known[-1] - known[-2]) / r
        if len(known) > 2:
            r_2 = step_in_t(levels[-3], levels[-2]) / h
            curvature = (slope - (known[-2] - known[-3]) / r_2) / (r + r_2)
            slope = slope + r * curvature
            x = x + (0.5 - phi_2(z)) * curvature
        x = x + (1 - phi_1(z)) * slope
    if eta > 0:
        x = x + noise(sigma, sigma_next) * (sigma_next * math.sqrt(-math.expm1(-2 * eta * h)) * s_noise)
    return replace(after, x=x)
