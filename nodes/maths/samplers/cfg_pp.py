"""CFG++: back to noise along the unconditional prediction, Chung et al. (2024); small scales of guidance suffice.

What a sampler does at x it does here at x + (guided - unconditional), and what it extrapolates is unconditional.
"""

import math
from dataclasses import replace

from nodes.maths.model_sampling import Latents
from nodes.maths.samplers.contract import Guided, NoiseSampler, State
from nodes.maths.samplers.exploding import exploded
from nodes.maths.samplers.exponential import last_step, res_update, step_down
from nodes.maths.samplers.terms import ancestral, exponential_step, scalars, step_in_t, to_d, to_sigma, to_t


def euler_cfg_pp(
    state: State, denoise: Guided, sigma: float, sigma_next: float, noise: NoiseSampler, *, flow: bool = False
) -> State:
    """Euler's method: the guided prediction under the noise that the unconditional one leaves, Chung et al. (2024)."""
    x = state.x
    denoised, uncond = denoise.both(x, sigma)
    if flow:
        return replace(state, x=_flow_step(x, denoised, uncond, sigma, sigma_next, sigma_next), denoised=denoised)
    return replace(state, x=denoised + to_d(x, sigma, uncond) * sigma_next, denoised=denoised)


def _flow_step(
    x: Latents, denoised: Latents, uncond: Latents, sigma: float, sigma_next: float, noise_left: float
) -> Latents:
    """On a flow: the guided prediction at the next level's signal, under so much of the unconditional noise."""
    return denoised * (1.0 - sigma_next) + to_d(x, sigma, uncond * (1.0 - sigma)) * noise_left


def euler_ancestral_cfg_pp(
    state: State,
    denoise: Guided,
    sigma: float,
    sigma_next: float,
    noise: NoiseSampler,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    flow: bool = False,
) -> State:
    """As `euler_cfg_pp`, below the next sigma, and fresh noise back up to it."""
    x = state.x
    denoised, uncond = denoise.both(x, sigma)
    if flow:
        signal = 1.0 - sigma_next
        level = exploded(sigma) if sigma < 1.0 else math.inf
        down, up = (signal * part for part in step_down(level, exploded(sigma_next), eta))
        x = _flow_step(x, denoised, uncond, sigma, sigma_next, down)
    else:
        down, up = step_down(sigma, sigma_next, eta)
        x = denoised + to_d(x, sigma, uncond) * down
    if up > 0:
        x = x + noise(sigma, sigma_next) * (up * s_noise)
    return replace(state, x=x, denoised=denoised)


def dpmpp_2s_ancestral_cfg_pp(
    state: State,
    denoise: Guided,
    sigma: float,
    sigma_next: float,
    noise: NoiseSampler,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> State:
    """DPM-Solver++(2S) below the next sigma from where CFG++ puts x, and noise back up to it."""
    denoised, uncond = denoise.both(state.x, sigma)
    if sigma_next == 0:
        return replace(state, x=denoised, denoised=denoised)
    x = state.x + (denoised - uncond)
    s, s_next = scalars(x, sigma, sigma_next)
    sigma_down, sigma_up = ancestral(s, s_next, eta)
    t, t_down = to_t(s), to_t(sigma_down)
    t_mid = t + (t_down - t) / 2
    denoised_2 = denoise(exponential_step(x, denoised, t, t_mid), to_sigma(t_mid).item())
    x = exponential_step(x, denoised_2, t, t_down) + noise(sigma, sigma_next) * (sigma_up * s_noise)
    return replace(state, x=x, denoised=denoised)


def dpmpp_2m_cfg_pp(state: State, denoise: Guided, sigma: float, sigma_next: float, noise: NoiseSampler) -> State:
    """DPM-Solver++(2M) from where CFG++ puts x; the line it goes on in starts at the last unconditional prediction."""
    x = state.x
    denoised, uncond = denoise.both(x, sigma)
    after = replace(state, x=denoised, history=(uncond,), sigmas=(sigma,), denoised=denoised)
    if sigma_next == 0:
        return after
    x = denoised + to_d(x, sigma, uncond) * sigma_next
    if state.history:
        h, h_last = step_in_t(sigma, sigma_next), step_in_t(state.sigmas[-1], sigma)
        x = x - math.expm1(-h) * h / (2 * h_last) * (denoised - state.history[-1])
    return replace(after, x=x)


def res_multistep_cfg_pp(
    state: State,
    denoise: Guided,
    sigma: float,
    sigma_next: float,
    noise: NoiseSampler,
    *,
    eta: float = 0.0,
    s_noise: float = 1.0,
) -> State:
    """RES on unconditional predictions from where CFG++ puts x; see `exponential.res_multistep`."""
    x = state.x
    denoised, uncond = denoise.both(x, sigma)
    down, up = step_down(sigma, sigma_next, eta)
    if state.history and down > 0:
        shifted = x + (denoised - uncond)
        x = res_update(shifted, uncond, state.history[-1], last_step(state, sigma, eta), step_in_t(sigma, down))
    else:
        x = denoised + to_d(x, sigma, uncond) * down
    if up > 0:
        x = x + noise(sigma, sigma_next) * (up * s_noise)
    return replace(state, x=x, history=(uncond,), sigmas=(sigma,), denoised=denoised)


def gradient_estimation_cfg_pp(
    state: State, denoise: Guided, sigma: float, sigma_next: float, noise: NoiseSampler, *, gamma: float = 2.0
) -> State:
    """`euler_cfg_pp` with the last change of the unconditional slope added gamma - 1 times."""
    x = state.x
    denoised, uncond = denoise.both(x, sigma)
    d = to_d(x, sigma, uncond)
    x = denoised + d * sigma_next
    if state.history and sigma_next > 0:
        x = x + (gamma - 1) * (d - state.history[-1]) * (sigma_next - sigma)
    return replace(state, x=x, history=(d,), denoised=denoised)
