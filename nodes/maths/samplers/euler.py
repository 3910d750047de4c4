"""Samplers of one slope a step: Euler's method, alone, with fresh noise, or with a guess where the slope is going."""

from dataclasses import replace

from nodes.maths.samplers.contract import Denoiser, NoiseSampler, State
from nodes.maths.samplers.growing import Growth
from nodes.maths.samplers.terms import ancestral, flow_ancestral, scalars, to_d


def euler(state: State, denoise: Denoiser, sigma: float, sigma_next: float, noise: NoiseSampler) -> State:
    """Euler's method on the probability flow, Karras et al. (2022), algorithm 2 without churn."""
    x = state.x
    denoised = denoise(x, sigma)
    x = x + to_d(x, sigma, denoised) * (sigma_next - sigma)
    return replace(state, x=x, denoised=denoised)


def euler_ancestral(
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
    """Euler's method below the next sigma, and noise back up to it, Song et al. (2020) and Crowson (2022)."""
    x = state.x
    denoised = denoise(x, sigma)
    if sigma_next == 0:
        return replace(state, x=denoised, denoised=denoised)
    if flow:
        down, scale, up = flow_ancestral(sigma, sigma_next, eta)
        x = (x + to_d(x, sigma, denoised) * (down - sigma)) * scale + noise(sigma, sigma_next) * (up * s_noise)
        return replace(state, x=x, denoised=denoised)
    s, s_next = scalars(x, sigma, sigma_next)
    sigma_down, sigma_up = ancestral(s, s_next, eta)
    if sigma_down == 0:  # noise of more than the next level is left out altogether, as in ComfyUI
        return replace(state, x=denoised, denoised=denoised)
    x = x + to_d(x, sigma, denoised) * (sigma_down - s) + noise(sigma, sigma_next) * (sigma_up * s_noise)
    return replace(state, x=x, denoised=denoised)


def ddpm(state: State, denoise: Denoiser, sigma: float, sigma_next: float, noise: NoiseSampler) -> State:
    """Mean and variance of the posterior one step back, Ho et al. (2020), equations 6 and 7.

    In x = latent + sigma·noise the alphas of the paper cancel: a mixture of x and the prediction is left.
    """
    x = state.x
    denoised = denoise(x, sigma)
    kept = (sigma_next / sigma) ** 2
    x = kept * x + (1 - kept) * denoised
    if sigma_next > 0:
        x = x + noise(sigma, sigma_next) * (sigma_next * (1 - kept) ** 0.5)
    return replace(state, x=x, denoised=denoised)


def lcm(
    state: State,
    denoise: Denoiser,
    sigma: float,
    sigma_next: float,
    noise: NoiseSampler,
    *,
    flow: bool = False,
    **growth: float,
) -> State:
    """Denoise all the way and noise back to the next sigma: consistency sampling, Song et al. (2023).

    With settings of `Growth` the latent grows in between; noise is then asked for in the size that it has afterwards.
    """
    x = denoised = denoise(state.x, sigma)
    if growth:
        x = Growth(**growth).grown(x, state.draws + 1)
    if sigma_next > 0:
        x = noise(sigma, sigma_next) * sigma_next + (x * (1.0 - sigma_next) if flow else x)
    return replace(state, x=x, denoised=denoised)


def gradient_estimation(
    state: State, denoise: Denoiser, sigma: float, sigma_next: float, noise: NoiseSampler, *, gamma: float = 2.0
) -> State:
    """Euler's method with the slope's last change added gamma - 1 times, Permenter and Yuan (2024), algorithm 2."""
    x = state.x
    denoised = denoise(x, sigma)
    d = to_d(x, sigma, denoised)
    after = replace(state, x=denoised, history=(d,), denoised=denoised)
    if sigma_next == 0:
        return after
    slope = d + (gamma - 1) * (d - state.history[-1]) if state.history else d
    return replace(after, x=x + slope * (sigma_next - sigma))
