"""How noise becomes a picture: a sampler is one pure step between two noise levels; its caller owns the loop."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from nodes.maths.model_sampling import Latents

Denoiser = Callable[[Latents, float], Latents]  # (x, sigma) -> denoised
NoiseSampler = Callable[[float, float], Tensor]  # (sigma, sigma_next) -> unit normal noise of x's shape
NoiseSource = Callable[[int, float, float], Tensor]  # the same by number of the draw: pure
NoiseKind = Literal["none", "sequential", "brownian"]


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Where sampling stands between two steps; all that the next step depends on."""

    x: Latents  # the noisy latent at the current sigma
    history: tuple[Latents, ...] = ()  # earlier denoised predictions, newest last, as many as the sampler needs
    sigmas: tuple[float, ...] = ()  # the sigmas those were taken at
    draws: int = 0  # how often noise has been drawn
    denoised: Latents | None = None  # the last denoised prediction, for previews


Sampler = Callable[[State, Denoiser, float, float, NoiseSampler], State]


def euler(state: State, denoise: Denoiser, sigma: float, sigma_next: float, noise: NoiseSampler) -> State:
    """Euler's method on the probability flow, Karras et al. (2022), algorithm 2 without churn."""
    x = state.x
    denoised = denoise(x, sigma)
    x = x + to_d(x, sigma, denoised) * (sigma_next - sigma)
    return replace(state, x=x, denoised=denoised)


def euler_ancestral(state: State, denoise: Denoiser, sigma: float, sigma_next: float, noise: NoiseSampler) -> State:
    """Euler's method below the next sigma, and noise back up to it, Song et al. (2020) and Crowson (2022)."""
    x = state.x
    denoised = denoise(x, sigma)
    if sigma_next == 0:
        return replace(state, x=denoised, denoised=denoised)
    s, s_next = scalars(x, sigma, sigma_next)
    sigma_down, sigma_up = ancestral(s, s_next)
    x = x + to_d(x, sigma, denoised) * (sigma_down - s) + noise(sigma, sigma_next) * sigma_up
    return replace(state, x=x, denoised=denoised)


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


def dpm_2(state: State, denoise: Denoiser, sigma: float, sigma_next: float, noise: NoiseSampler) -> State:
    """The midpoint method with its midpoint in log sigma: DPM-Solver-2, Lu et al. (2022)."""
    x = state.x
    denoised = denoise(x, sigma)
    d = to_d(x, sigma, denoised)
    s, s_next = scalars(x, sigma, sigma_next)
    x = x + d * (s_next - s) if sigma_next == 0 else midpoint(x, d, denoise, s, s_next)
    return replace(state, x=x, denoised=denoised)


def dpm_2_ancestral(state: State, denoise: Denoiser, sigma: float, sigma_next: float, noise: NoiseSampler) -> State:
    """DPM-Solver-2 below the next sigma, and noise back up to it."""
    x = state.x
    denoised = denoise(x, sigma)
    d = to_d(x, sigma, denoised)
    s, s_next = scalars(x, sigma, sigma_next)
    if sigma_next == 0:
        return replace(state, x=x + d * (s_next - s), denoised=denoised)
    sigma_down, sigma_up = ancestral(s, s_next)
    x = midpoint(x, d, denoise, s, sigma_down) + noise(sigma, sigma_next) * sigma_up
    return replace(state, x=x, denoised=denoised)


def dpmpp_2s_ancestral(state: State, denoise: Denoiser, sigma: float, sigma_next: float, noise: NoiseSampler) -> State:
    """DPM-Solver++(2S) below the next sigma, and noise back up to it, Lu et al. (2022), algorithm 1."""
    x = state.x
    denoised = denoise(x, sigma)
    s, s_next = scalars(x, sigma, sigma_next)
    if sigma_next == 0:
        return replace(state, x=x + to_d(x, sigma, denoised) * (s_next - s), denoised=denoised)
    sigma_down, sigma_up = ancestral(s, s_next)
    t, t_down = to_t(s), to_t(sigma_down)
    t_mid = t + (t_down - t) / 2
    denoised_2 = denoise(exponential_step(x, denoised, t, t_mid), to_sigma(t_mid).item())
    x = exponential_step(x, denoised_2, t, t_down) + noise(sigma, sigma_next) * sigma_up
    return replace(state, x=x, denoised=denoised)


def dpmpp_sde(state: State, denoise: Denoiser, sigma: float, sigma_next: float, noise: NoiseSampler) -> State:
    """DPM-Solver++ (stochastic) with r = 1/2: one Brownian path's noise at midpoint and end, Crowson (2022)."""
    x = state.x
    denoised = denoise(x, sigma)
    s, s_next = scalars(x, sigma, sigma_next)
    if sigma_next == 0:
        return replace(state, x=x + to_d(x, sigma, denoised) * (s_next - s), denoised=denoised)
    t, t_next = to_t(s), to_t(s_next)
    s_mid = to_sigma(t + (t_next - t) / 2)
    sigma_mid = s_mid.item()

    sigma_down, sigma_up = ancestral(s, s_mid)
    x_2 = exponential_step(x, denoised, t, to_t(sigma_down)) + noise(sigma, sigma_mid) * sigma_up
    denoised_2 = denoise(x_2, sigma_mid)

    # (1 - 1/2r) denoised + 1/2r denoised_2 at r = 1/2: only the midpoint's prediction counts.
    sigma_down, sigma_up = ancestral(s, s_next)
    x = exponential_step(x, denoised_2, t, to_t(sigma_down)) + noise(sigma, sigma_next) * sigma_up
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


def dpmpp_2m_sde(state: State, denoise: Denoiser, sigma: float, sigma_next: float, noise: NoiseSampler) -> State:
    """SDE-DPM-Solver++(2M) with the midpoint correction, Lu et al. (2022), section 4."""
    x = state.x
    denoised = denoise(x, sigma)
    after = replace(state, x=denoised, history=(denoised,), sigmas=(sigma,), denoised=denoised)
    if sigma_next == 0:
        return after
    s, s_next = scalars(x, sigma, sigma_next)
    h = to_t(s_next) - to_t(s)
    new = -(-2 * h).expm1()  # the share of the next x's variance that this step renews
    x = s_next / s * (-h).exp() * x + new * denoised
    if state.history:
        x = x + 0.5 * new / step_ratio(state, s, s_next) * (denoised - state.history[-1])
    x = x + noise(sigma, sigma_next) * s_next * new.sqrt()
    return replace(after, x=x)


def lcm(state: State, denoise: Denoiser, sigma: float, sigma_next: float, noise: NoiseSampler) -> State:
    """Denoise all the way and noise back to the next sigma: consistency sampling, Song et al. (2023)."""
    x = denoised = denoise(state.x, sigma)
    if sigma_next > 0:
        x = noise(sigma, sigma_next) * sigma_next + x
    return replace(state, x=x, denoised=denoised)


def to_d(x: Latents, sigma: float | Tensor, denoised: Latents) -> Latents:
    """The slope dx/dsigma of the probability flow."""
    return (x - denoised) / sigma


def ancestral(sigma: Tensor, sigma_next: Tensor) -> tuple[Tensor, Tensor]:
    """The level to step down to and the noise to add there, so that the sum has variance sigma_next squared."""
    sigma_up = torch.minimum(sigma_next, (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2) ** 0.5)
    return (sigma_next**2 - sigma_up**2) ** 0.5, sigma_up


def midpoint(x: Latents, d: Latents, denoise: Denoiser, sigma: Tensor, sigma_next: Tensor) -> Latents:
    """Step with the slope found halfway in log sigma."""
    sigma_mid = sigma.log().lerp(sigma_next.log(), 0.5).exp()
    x_2 = x + d * (sigma_mid - sigma)
    return x + to_d(x_2, sigma_mid, denoise(x_2, sigma_mid.item())) * (sigma_next - sigma)


def exponential_step(x: Latents, denoised: Latents, t: Tensor, t_next: Tensor) -> Latents:
    """The exact solution in t = -log sigma while the prediction is constant, Lu et al. (2022)."""
    return to_sigma(t_next) / to_sigma(t) * x - (t - t_next).expm1() * denoised


def step_ratio(state: State, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """The last step's length over this one's, in t."""
    (previous,) = scalars(state.x, state.sigmas[-1])
    return (to_t(sigma) - to_t(previous)) / (to_t(sigma_next) - to_t(sigma))


def scalars(x: Latents, *sigmas: float) -> tuple[Tensor, ...]:
    """Sigmas as the reference computes with them, in the precision of x.

    A midpoint that is off by one rounding asks the Brownian path for a visibly different increment.
    """
    return tuple(torch.tensor(sigma, dtype=x.dtype) for sigma in sigmas)


def to_t(sigma: Tensor) -> Tensor:
    return -sigma.log()


def to_sigma(t: Tensor) -> Tensor:
    return (-t).exp()


@dataclass(frozen=True, slots=True)
class SamplerSpec:
    """A sampler and what its caller has to know about it."""

    step: Sampler
    order: int = 1
    evaluations: int = 1
    noise: NoiseKind = "none"
    drop_penultimate: bool = False  # the last sigma but one is left out of the schedule
    mask_seed_offset: int = 0  # inpainting noises the kept area with seed + this


SAMPLERS: dict[str, SamplerSpec] = {
    "euler": SamplerSpec(euler),
    "euler_ancestral": SamplerSpec(euler_ancestral, noise="sequential"),
    "heun": SamplerSpec(heun, order=2, evaluations=2),
    "dpm_2": SamplerSpec(dpm_2, order=2, evaluations=2, drop_penultimate=True),
    "dpm_2_ancestral": SamplerSpec(dpm_2_ancestral, order=2, evaluations=2, noise="sequential", drop_penultimate=True),
    "dpmpp_2s_ancestral": SamplerSpec(dpmpp_2s_ancestral, order=2, evaluations=2, noise="sequential"),
    "dpmpp_sde": SamplerSpec(dpmpp_sde, order=2, evaluations=2, noise="brownian"),
    "dpmpp_2m": SamplerSpec(dpmpp_2m, order=2),
    "dpmpp_2m_sde": SamplerSpec(dpmpp_2m_sde, order=2, noise="brownian"),
    "lcm": SamplerSpec(lcm, noise="sequential"),
    "ddim": SamplerSpec(euler, mask_seed_offset=1),
}


def advance(
    sampler_name: str, state: State, denoise: Denoiser, sigma: float, sigma_next: float, noise_source: NoiseSource
) -> State:
    """One step of the named sampler: a pure function of its arguments, so a frozen state continues bit for bit.

    Two equal sigmas, which a schedule of very many steps can hold, are no step. Raises ValueError for an unknown
    sampler, for a sigma that is not positive, and for a rising step of a sampler that would have to remove noise.
    """
    if sampler_name not in SAMPLERS:
        raise ValueError(f"unknown sampler {sampler_name!r}; expected one of {', '.join(SAMPLERS)}")
    spec = SAMPLERS[sampler_name]
    if not sigma > 0 or not sigma_next >= 0:
        raise ValueError(
            f"a step from sigma {sigma} to {sigma_next}: expected a positive sigma and a next one of at least 0"
        )
    if sigma_next > sigma and spec.noise != "none":
        raise ValueError(f"{sampler_name} cannot step up from sigma {sigma} to {sigma_next}")
    if sigma_next == sigma:
        return state

    drawn = 0

    def noise(sigma: float, sigma_next: float) -> Tensor:
        nonlocal drawn
        drawn += 1
        return noise_source(state.draws + drawn - 1, sigma, sigma_next).to(state.x)

    after = spec.step(state, denoise, sigma, sigma_next, noise)
    return replace(after, draws=state.draws + drawn)
