"""Linear multistep samplers: the slope is a polynomial through the last few, integrated over the step.

They differ in what it is a polynomial of. All end on the prediction.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from nodes.maths.model_sampling import Latents
from nodes.maths.samplers.contract import Denoiser, NoiseSampler, State
from nodes.maths.samplers.terms import combined, to_d

Weigh = Callable[[Sequence[float], float], Sequence[float]]  # (sigmas newest first, sigma_next) -> weights of slopes

# Adams and Bashforth (1883): for slopes at equal distances, newest first.
EQUAL_STEPS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


def lms(
    state: State, denoise: Denoiser, sigma: float, sigma_next: float, noise: NoiseSampler, *, order: float = 4
) -> State:
    """A polynomial in sigma through the last four slopes, Crowson (2022), after Liu et al. (2022)."""
    return _step(state, denoise, sigma, sigma_next, int(order), _in_sigma)


def ipndm(state: State, denoise: Denoiser, sigma: float, sigma_next: float, noise: NoiseSampler) -> State:
    """The last four slopes weighted as if their sigmas were evenly apart, Zhang and Chen (2023), improved PNDM."""
    return _step(state, denoise, sigma, sigma_next, len(EQUAL_STEPS), _as_if_even)


def ipndm_v(state: State, denoise: Denoiser, sigma: float, sigma_next: float, noise: NoiseSampler) -> State:
    """Improved PNDM with weights for the distances there are, Zhang and Chen (2023)."""
    return _step(state, denoise, sigma, sigma_next, len(EQUAL_STEPS), _in_sigma)


def deis(state: State, denoise: Denoiser, sigma: float, sigma_next: float, noise: NoiseSampler) -> State:
    """A polynomial in time through the last three slopes, Zhang and Chen (2023), tAB-DEIS.

    Time is that of a variance-preserving process whose sigma is 0.002 at 1/1000 and 80 at 1.
    """
    return _step(state, denoise, sigma, sigma_next, 3, _in_time)


def _step(state: State, denoise: Denoiser, sigma: float, sigma_next: float, order: int, weigh: Weigh) -> State:
    x = state.x
    denoised = denoise(x, sigma)
    slopes: list[Latents] = [to_d(x, sigma, denoised), *reversed(state.history)]
    sigmas = (sigma, *reversed(state.sigmas))
    x = denoised if sigma_next == 0 else x + combined(weigh(sigmas, sigma_next), slopes)
    history, known = tuple(reversed(slopes[: order - 1])), tuple(reversed(sigmas[: order - 1]))
    return replace(state, x=x, history=history, sigmas=known, denoised=denoised)


def _as_if_even(sigmas: Sequence[float], sigma_next: float) -> list[float]:
    return [weight * (sigma_next - sigmas[0]) for weight in EQUAL_STEPS[len(sigmas) - 1]]


def _in_sigma(sigmas: Sequence[float], sigma_next: float) -> list[float]:
    return lagrange_integrals(sigmas, sigmas[0], sigma_next)


def _in_time(sigmas: Sequence[float], sigma_next: float) -> list[float]:
    times = [TIME.of(sigma) for sigma in sigmas]
    return lagrange_integrals(times, times[0], TIME.of(sigma_next), TIME.speed)


def lagrange_integrals(
    nodes: Sequence[float], start: float, end: float, density: Callable[[float], float] = lambda at: 1.0
) -> list[float]:
    """For each node the integral of its Lagrange polynomial (1 there, 0 at the others) times a density.

    By Gauss's rule with 16 points: exact for a constant density, to some 1e-12 for a smooth one.
    """
    half, centre = (end - start) / 2, (end + start) / 2
    totals = [0.0] * len(nodes)
    for point, weight in gauss_points(16):
        at = centre + half * point
        share = half * weight * density(at)
        for j, node in enumerate(nodes):
            totals[j] += share * math.prod((at - other) / (node - other) for other in nodes if other != node)
    return totals


@lru_cache(maxsize=4)
def gauss_points(count: int) -> tuple[tuple[float, float], ...]:
    """Points in -1…1 and their weights, Gauss and Legendre."""
    from numpy.polynomial.legendre import leggauss  # here, because few samplers need it

    points, weights = leggauss(count)
    return tuple(zip(map(float, points), map(float, weights), strict=True))


@dataclass(frozen=True)
class _Time:
    """The time of a variance-preserving process with linear beta: log(1 + sigma²) = beta_d·t²/2 + beta_min·t.

    Song et al. (2021), as in Karras et al. (2022), table 1; sigma is `low` at time `epsilon` and `high` at 1.
    """

    low: float = 0.002
    high: float = 80.0
    epsilon: float = 1e-3

    @cached_property
    def beta_d(self) -> float:
        return 2 * (math.log1p(self.low**2) / self.epsilon - math.log1p(self.high**2)) / (self.epsilon - 1)

    @cached_property
    def beta_min(self) -> float:
        return math.log1p(self.high**2) - self.beta_d / 2

    def of(self, sigma: float) -> float:
        """The time at which the process has this sigma."""
        root = math.sqrt(self.beta_min**2 + 2 * self.beta_d * math.log1p(sigma**2))
        return (root - self.beta_min) / self.beta_d

    def speed(self, t: float) -> float:
        """How fast sigma grows at a time."""
        square = math.expm1(self.beta_d * t**2 / 2 + self.beta_min * t)
        return (self.beta_d * t + self.beta_min) * (1 + square) / (2 * math.sqrt(square))


TIME = _Time()
