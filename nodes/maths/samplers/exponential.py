"""Exponential Runge-Kutta and multistep samplers in t = -log sigma: RES and SEEDS."""

import math
from dataclasses import dataclass, replace

from nodes.maths.model_sampling import Latents
from nodes.maths.samplers.contract import Denoiser, NoiseSampler, State
from nodes.maths.samplers.terms import phi_1, phi_2, step_in_t, to_d


def res_multistep(
    state: State,
    denoise: Denoiser,
    sigma: float,
    sigma_next: float,
    noise: NoiseSampler,
    *,
    eta: float = 0.0,
    s_noise: float = 1.0,
) -> State:
    """The exponential multistep method of second order, Zhang et al. (2023), "RES", below the next sigma if eta > 0."""
    x = state.x
    denoised = denoise(x, sigma)
    down, up = step_down(sigma, sigma_next, eta)
    if state.history and down > 0:
        x = res_update(x, denoised, state.history[-1], last_step(state, sigma, eta), step_in_t(sigma, down))
    else:
        x = x + to_d(x, sigma, denoised) * (down - sigma)
    if up > 0:
        x = x + noise(sigma, sigma_next) * (up * s_noise)
    return replace(state, x=x, history=(denoised,), sigmas=(sigma,), denoised=denoised)


def res_update(x: Latents, denoised: Latents, before: Latents, h_last: float, h: float) -> Latents:
    """A step of length h in t, while the prediction goes on in the line through the last two, h_last apart."""
    ahead = h / h_last * phi_2(-h)
    return math.exp(-h) * x + h * ((phi_1(-h) + ahead) * denoised - ahead * before)


def last_step(state: State, sigma: float, eta: float) -> float:
    """How far in t the last step went, before noise was added."""
    down, _ = step_down(state.sigmas[-1], sigma, eta)
    return step_in_t(state.sigmas[-1], down)


def step_down(sigma: float, sigma_next: float, eta: float) -> tuple[float, float]:
    """`terms.ancestral` in the precision of Python."""
    if eta == 0 or sigma_next == 0:
        return sigma_next, 0.0
    up = min(sigma_next, eta * sigma_next * math.sqrt(1 - (sigma_next / sigma) ** 2))
    return math.sqrt(sigma_next**2 - up**2), up


def seeds_2(
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
    """SEEDS-2, Gonzalez et al. (2023): two stages under the noise of one path."""
    x = state.x
    denoised = denoise(x, sigma)
    if sigma_next == 0:
        return replace(state, x=denoised, denoised=denoised)
    step = _Step(sigma, step_in_t(sigma, sigma_next), eta)
    shaken, shaken_2 = step.path(noise, s_noise, r, 1.0)
    denoised_2 = denoise(step.to(r, x, denoised, shaken), step.level(r))
    x = step.to(1.0, x, denoised + (denoised_2 - denoised) / (2 * r), shaken_2)
    return replace(state, x=x, denoised=denoised)


def seeds_3(
    state: State,
    denoise: Denoiser,
    sigma: float,
    sigma_next: float,
    noise: NoiseSampler,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    r_1: float = 1 / 3,
    r_2: float = 2 / 3,
) -> State:
    """SEEDS-3, Gonzalez et al. (2023): three stages under the noise of one path."""
    x = state.x
    denoised = denoise(x, sigma)
    if sigma_next == 0:
        return replace(state, x=denoised, denoised=denoised)
    step = _Step(sigma, step_in_t(sigma, sigma_next), eta)
    shaken, shaken_2, shaken_3 = step.path(noise, s_noise, r_1, r_2, 1.0)
    denoised_2 = denoise(step.to(r_1, x, denoised, shaken), step.level(r_1))
    slope = (denoised_2 - denoised) / r_1
    denoised_3 = denoise(step.to(r_2, x, denoised, shaken_2, slope), step.level(r_2))
    slope = (denoised_3 - denoised) / r_2
    x = step.to(1.0, x, denoised, shaken_3, slope)
    return replace(state, x=x, denoised=denoised)


@dataclass(frozen=True, slots=True)
class _Step:
    """A step of length h in t, along the process that forgets eta times as fast as the probability flow falls."""

    sigma: float
    h: float
    eta: float

    def level(self, share: float) -> float:
        """Sigma after a share of the step."""
        return self.sigma * math.exp(-share * self.h)

    def path(self, noise: NoiseSampler, s_noise: float, *shares: float) -> list[Latents | None]:
        """The noise there is after each of these shares: fresh, and what is left of that before."""
        path: list[Latents | None] = []
        before, total = 0.0, None
        for share in shares if self.eta > 0 and s_noise > 0 else ():
            forgotten = -self.eta * self.h * (share - before)
            fresh = noise(self.level(before), self.level(share)) * math.sqrt(-math.expm1(2 * forgotten)) * s_noise
            total = fresh if total is None else total * math.exp(forgotten) + fresh
            path.append(total * self.level(share))
            before = share
        return path or [None] * len(shares)

    def to(
        self, share: float, x: Latents, denoised: Latents, shaken: Latents | None, slope: Latents | None = None
    ) -> Latents:
        """x after a share of the step, with a prediction that is constant or has this slope over the whole step."""
        z = -share * self.h * (1 + self.eta)
        x = math.exp(z) * x - math.expm1(z) * denoised
        if slope is not None:
            x = x + share * (1 - phi_1(z)) * slope
        return x if shaken is None else x + shaken
