"""Noise levels from a formula or a table alone; named schedules apply some of them to a model's own range."""

import math
from collections.abc import Sequence

import torch

from nodes.maths.model_sampling import DiscreteSampling, ModelSampling, NoiseLevels

# Sabour et al. (2024), "Align Your Steps", as published with the paper: timesteps of Stable Diffusion's table …
ALIGNED_TIMESTEPS: dict[str, tuple[int, ...]] = {
    "SD1": (999, 850, 736, 645, 545, 455, 343, 233, 124, 24, 0),
    "SDXL": (999, 845, 730, 587, 443, 310, 193, 116, 53, 13, 0),
}
# … and noise levels of Stable Video Diffusion.
ALIGNED_LEVELS: dict[str, tuple[float, ...]] = {
    "SVD": (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002),
}

SHIFTED_TOKENS = 1024, 4096


def karras(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> NoiseLevels:
    """Evenly apart in sigma^(1/rho), then 0, Karras et al. (2022), equation 5. Raises ValueError for rho 0."""
    if not rho > 0:
        raise ValueError(
            f"rho {rho:g}: expected more than 0; 7 is usual, and higher values crowd the levels at the end"
        )
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return _finished((high + torch.linspace(0, 1, steps) * (low - high)) ** rho)


def exponential(steps: int, sigma_min: float, sigma_max: float) -> NoiseLevels:
    """Evenly apart in the logarithm, then 0. Raises ValueError for an end at 0, which has none."""
    return _finished(torch.linspace(_log(sigma_max), _log(sigma_min), steps).exp())


def polyexponential(steps: int, sigma_min: float, sigma_max: float, rho: float = 1.0) -> NoiseLevels:
    """A power in the logarithm, then 0, Crowson (2022): `exponential` at rho 1. Raises ValueError for an end at 0."""
    low, high = _log(sigma_min), _log(sigma_max)
    return _finished((torch.linspace(1, 0, steps) ** rho * (high - low) + low).exp())


def variance_preserving(steps: int, beta_d: float = 19.9, beta_min: float = 0.1, eps_s: float = 1e-3) -> NoiseLevels:
    """Evenly apart in the time of the continuous process of Song et al. (2021), from 1 to eps_s, then 0.

    Its noise levels are those of Karras et al. (2022), table 1, column VP. Raises ValueError where they overflow.
    """
    t = torch.linspace(1, eps_s, steps)
    return _finished((beta_d * t**2 / 2 + beta_min * t).expm1().sqrt())


def laplace(steps: int, sigma_min: float, sigma_max: float, mu: float = 0.0, beta: float = 0.5) -> NoiseLevels:
    """Even quantiles of a Laplace distribution of the logarithm, within the two ends, Hang et al. (2024).

    `steps` levels without a 0 behind them: a sampler takes one step fewer and leaves noise over.
    """
    x = torch.linspace(0, 1, steps)
    away = (0.5 - x).abs()
    # The summand keeps both ends finite; there the limits take over.
    logarithm = mu - beta * (0.5 - x).sign() * (1 - 2 * away + 1e-5).log()
    return _finite(logarithm.exp().clamp(sigma_min, sigma_max))


def turbo(sampling: ModelSampling, steps: int, denoise: float = 1.0) -> NoiseLevels:
    """The timesteps of adversarial distillation, 999, 899 … 99, then 0, Sauer et al. (2023).

    Less denoising leaves out the first of them; the rest may be fewer than `steps`.
    """
    left_out = 10 - int(10 * denoise)
    timesteps = range(999 - 100 * left_out, 0, -100)[:steps]
    return _finished(torch.tensor([sampling.sigma(t) for t in timesteps]))


def aligned(kind: str, steps: int, denoise: float = 1.0) -> NoiseLevels:
    """The optimised levels of Sabour et al. (2024) for a kind of model: SD1, SDXL or SVD.

    They are published for 10 steps; other numbers are interpolated in the logarithm. Of the whole, the last
    round(steps · denoise) steps; empty without any denoising.
    """
    table = ALIGNED_LEVELS.get(kind) or [DiscreteSampling().sigma(t) for t in ALIGNED_TIMESTEPS[kind]]
    if denoise <= 0:
        return torch.empty(0)
    levels = table if steps + 1 == len(table) else _interpolated(table, steps + 1)
    kept = levels[-(round(steps * denoise) + 1) :]
    return torch.tensor([*kept[:-1], 0.0])


def shifted_by_size(
    steps: int, tokens: int, max_shift: float, base_shift: float, terminal: float | None
) -> NoiseLevels:
    """Of a rectified flow: evenly apart, shifted towards noise by how many tokens there are, then 0, as for LTX-Video.

    Args:
        tokens: the shift is `base_shift` at 1024 of them and `max_shift` at 4096, both as logarithms.
        terminal: what the last level above 0 is stretched to; None leaves it.
    """
    few, many = SHIFTED_TOKENS
    shift = math.exp(base_shift + (max_shift - base_shift) * (tokens - few) / (many - few))
    u = torch.linspace(1.0, 0.0, steps + 1)[:-1]
    sigmas = shift / (shift + (1.0 / u - 1.0))
    if terminal is not None and steps > 1:
        sigmas = 1.0 - (1.0 - sigmas) * (1.0 - terminal) / (1.0 - sigmas[-1])
    return _finished(sigmas)


def _interpolated(levels: Sequence[float], count: int) -> list[float]:
    """As many levels, log-linear between those given."""
    logs = [math.log(level) for level in levels]

    def at(place: float) -> float:
        low = min(int(place), len(logs) - 2)
        return math.exp(logs[low] + (place - low) * (logs[low + 1] - logs[low]))

    return [at(i * (len(levels) - 1) / (count - 1)) for i in range(count)]


def _log(sigma: float) -> float:
    if not sigma > 0:
        raise ValueError(
            f"a noise level of {sigma:g} has no logarithm, which this schedule needs; take a small one, 0.03"
        )
    return math.log(sigma)


def _finite(sigmas: NoiseLevels) -> NoiseLevels:
    if not sigmas.isfinite().all():
        raise ValueError("with these settings the noise levels leave the range of numbers; bring them nearer to usual")
    return sigmas


def _finished(sigmas: NoiseLevels) -> NoiseLevels:
    return torch.cat([_finite(sigmas), torch.zeros(1)])
