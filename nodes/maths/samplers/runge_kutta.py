"""Samplers that look at several slopes within a step: Runge-Kutta methods in sigma and in log sigma."""

from dataclasses import replace

from nodes.maths.samplers.contract import Denoiser, NoiseSampler, State
from nodes.maths.samplers.terms import ancestral, combined, flow_ancestral, midpoint, scalars, to_d


def heun(state: State, denoise: Denoiser, sigma: float, sigma_next: float, noise: NoiseSampler) -> State:
    """Heun's method: the mean of the slopes at both ends, Karras et al. (2022), algorithm 1."""
    x = state.x
    denoised = denoise(x, sigma)
    d, dt = to_d(x, sigma, denoised), sigma_next - sigma
    if sigma_next == 0:
        return replace(state, x=x + d * dt, denoised=denoised)
    x_2 = x + d * dt
    d_2 = to_d(x_2, sigma_next, denoise(x_2, sigma_next))
    return replace(state, x=x + (d + d_2) / 2 * dt, denoised=denoised)


def heunpp2(state: State, denoise: Denoiser, sigma: float, sigma_next: float, noise: NoiseSampler) -> State:
    """The slopes at this sigma and the next two, those weighted by their share of the first sigma: "Heun++".

    At the end there are fewer: the last step is Euler's method, the one before it sees two slopes. What lies ahead
    tells.
    """
    x = state.x
    first = state.sigmas[0] if state.sigmas else sigma
    denoised = denoise(x, sigma)
    slopes, x_2, at = [to_d(x, sigma, denoised)], x, sigma
    inner = (sigma_next, *state.ahead)[:-1][:2]
    for further in inner:
        x_2, at = x_2 + slopes[-1] * (further - at), further
        slopes.append(to_d(x_2, further, denoise(x_2, further)))
    weights = [further / (len(slopes) * first) for further in inner]
    slope = combined([1 - sum(weights), *weights], slopes)
    return replace(state, x=x + slope * (sigma_next - sigma), sigmas=(first,), denoised=denoised)


def dpm_2(state: State, denoise: Denoiser, sigma: float, sigma_next: float, noise: NoiseSampler) -> State:
    """The midpoint method with its midpoint in log sigma: DPM-Solver-2, Lu et al. (2022)."""
    x = state.x
    denoised = denoise(x, sigma)
    d = to_d(x, sigma, denoised)
    s, s_next = scalars(x, sigma, sigma_next)
    x = x + d * (s_next - s) if sigma_next == 0 else midpoint(x, d, denoise, s, s_next)
    return replace(state, x=x, denoised=denoised)


def dpm_2_ancestral(
    state: State, denoise: Denoiser, sigma: float, sigma_next: float, noise: NoiseSampler, *, flow: bool = False
) -> State:
    """DPM-Solver-2 below the next sigma, and noise back up to it."""
    x = state.x
    denoised = denoise(x, sigma)
    d = to_d(x, sigma, denoised)
    s, s_next = scalars(x, sigma, sigma_next)
    if sigma_next == 0:
        return replace(state, x=x + d * (s_next - s), denoised=denoised)
    if flow:
        down, scale, up = flow_ancestral(sigma, sigma_next)
        x = midpoint(x, d, denoise, *scalars(x, sigma, down)) * scale + noise(sigma, sigma_next) * up
        return replace(state, x=x, denoised=denoised)
    sigma_down, sigma_up = ancestral(s, s_next)
    x = midpoint(x, d, denoise, s, sigma_down) + noise(sigma, sigma_next) * sigma_up
    return replace(state, x=x, denoised=denoised)
