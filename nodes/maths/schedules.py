"""Which noise levels a sampler visits: a schedule maps a model's levels and a number of steps to falling sigmas."""

import math
from collections.abc import Callable

import torch

from nodes.maths import spacings
from nodes.maths.model_sampling import ModelSampling, NoiseLevels

# steps + 1 levels, the last of them 0, unless the schedule's docstring says otherwise.
Schedule = Callable[[ModelSampling, int], NoiseLevels]

# A table that already ends here needs no zero behind it.
ALMOST_ZERO = 1e-5

MOST_STEPS = 1_000_000

# These evaluate once more between two sigmas, so one is taken from the crowded end of the schedule.
DROP_PENULTIMATE = frozenset({"dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"})


def simple(sampling: ModelSampling, steps: int) -> NoiseLevels:
    """Every len/steps-th entry of the table, from the last."""
    table = sampling.sigmas
    # The stride is rounded to a double before it is multiplied, as the reference does.
    stride = len(table) / steps
    return _with_zero([table[-(1 + int(i * stride))].item() for i in range(steps)])


def sgm_uniform(sampling: ModelSampling, steps: int) -> NoiseLevels:
    """Timesteps evenly apart, the one at sigma_min left out."""
    return _with_zero(_at(sampling, _ramp_of_timesteps(sampling, steps + 1)[:-1]))


def karras(sampling: ModelSampling, steps: int) -> NoiseLevels:
    """Evenly apart in sigma^(1/7), Karras et al. (2022), equation 5."""
    return spacings.karras(steps, sampling.sigma_min, sampling.sigma_max)


def exponential(sampling: ModelSampling, steps: int) -> NoiseLevels:
    """Evenly apart in the logarithm of sigma."""
    return spacings.exponential(steps, sampling.sigma_min, sampling.sigma_max)


def ddim_uniform(sampling: ModelSampling, steps: int) -> NoiseLevels:
    """Timesteps 1, 1 + stride, ... of Song et al. (2020); there may be more of them than steps."""
    table = sampling.sigmas
    ends_at_zero = _almost_zero(table[1].item())
    stride = max(len(table) // (steps + ends_at_zero), 1)
    falling = table[1::stride].flip(0)
    return falling if ends_at_zero else _with_zero(falling)


def beta(sampling: ModelSampling, steps: int, alpha: float = 0.6, beta: float = 0.6) -> NoiseLevels:
    """Timesteps at the quantiles of Beta(alpha, beta), Lee et al. (2024); repeats dropped, so maybe fewer than steps.

    Raises ValueError unless both parameters are above 0.
    """
    from scipy.special import betaincinv  # here, because only this schedule needs it

    if not (alpha > 0 and beta > 0):
        raise ValueError(f"alpha {alpha:g} and beta {beta:g}: expected both above 0; 0.6 is usual for both")
    table = sampling.sigmas
    quantiles = [betaincinv(alpha, beta, 1 - i / steps) for i in range(steps)]
    # Python's round is numpy's rint: halves go to the even neighbour. The quantiles fall, so equal ones are neighbours.
    timesteps = dict.fromkeys(round(float(q) * (len(table) - 1)) for q in quantiles)
    return _with_zero([table[t].item() for t in timesteps])


def normal(sampling: ModelSampling, steps: int) -> NoiseLevels:
    """Timesteps evenly apart, from sigma_max to sigma_min."""
    if _almost_zero(sampling.sigma(sampling.timestep(sampling.sigma_min))):
        return torch.tensor(_at(sampling, _ramp_of_timesteps(sampling, steps + 1)))
    return _with_zero(_at(sampling, _ramp_of_timesteps(sampling, steps)))


def linear_quadratic(sampling: ModelSampling, steps: int) -> NoiseLevels:
    """The first half falls by 2.5 % in a line, the rest along a parabola of equal slope there, Polyak et al. (2024)."""
    threshold, linear = 0.025, steps // 2
    if not linear:
        return torch.tensor([1.0, 0.0]) * sampling.sigma_max
    slope, rest = threshold / linear, steps - linear
    curvature = (1 - threshold - slope * rest) / rest**2
    fallen = [slope * i + curvature * max(i - linear, 0) ** 2 for i in range(steps)]
    return torch.tensor([1 - share for share in fallen] + [0.0]) * sampling.sigma_max


def kl_optimal(sampling: ModelSampling, steps: int) -> NoiseLevels:
    """Evenly apart in arctan(sigma), Sabour et al. (2024)."""
    ramp = torch.linspace(0, 1, steps)  # one step starts at sigma_max, where the published i / (n - 1) has no value
    return _with_zero((ramp * math.atan(sampling.sigma_min) + (1 - ramp) * math.atan(sampling.sigma_max)).tan())


SCHEDULES: dict[str, Schedule] = {
    "simple": simple,
    "sgm_uniform": sgm_uniform,
    "karras": karras,
    "exponential": exponential,
    "ddim_uniform": ddim_uniform,
    "beta": beta,
    "normal": normal,
    "linear_quadratic": linear_quadratic,
    "kl_optimal": kl_optimal,
}


def scheduled_sigmas(sampling: ModelSampling, schedule: str, steps: int) -> NoiseLevels:
    """The whole schedule by name, ending with 0. Raises ValueError for an unknown name or less than one step."""
    if schedule not in SCHEDULES:
        raise ValueError(f"unknown schedule {schedule!r}; expected one of {', '.join(SCHEDULES)}")
    if steps < 1:
        raise ValueError(f"a schedule needs at least 1 step, found {steps}")
    return SCHEDULES[schedule](sampling, steps)


def sigmas_for(
    sampling: ModelSampling, schedule: str, steps: int, denoise: float = 1.0, sampler_name: str = "euler"
) -> NoiseLevels:
    """The noise levels of KSampler: the last `steps` of int(steps / denoise); empty when nothing is to be denoised."""
    if not denoise > 0.0:
        return torch.empty(0)
    if denoise > 0.9999:
        return _fit_for(sampler_name, sampling, schedule, steps)
    return _fit_for(sampler_name, sampling, schedule, steps_of_whole(steps, denoise))[-(steps + 1) :]


def steps_of_whole(steps: int, denoise: float) -> int:
    """How many steps a schedule has, of which `steps` are the share `denoise`. ValueError beyond a million."""
    whole = steps / denoise
    if whole > MOST_STEPS:
        raise ValueError(f"{steps} steps at denoise {denoise:g} need a schedule of {whole:.3g}; raise denoise")
    return int(whole)


def _fit_for(sampler_name: str, sampling: ModelSampling, schedule: str, steps: int) -> NoiseLevels:
    if sampler_name not in DROP_PENULTIMATE:
        return scheduled_sigmas(sampling, schedule, steps)
    if steps < 1:
        raise ValueError(f"a schedule needs at least 1 step, found {steps}")
    sigmas = scheduled_sigmas(sampling, schedule, steps + 1)
    return torch.cat([sigmas[:-2], sigmas[-1:]])


def _ramp_of_timesteps(sampling: ModelSampling, count: int) -> NoiseLevels:
    return torch.linspace(sampling.timestep(sampling.sigma_max), sampling.timestep(sampling.sigma_min), count)


def _at(sampling: ModelSampling, timesteps: NoiseLevels) -> list[float]:
    return [sampling.sigma(t.item()) for t in timesteps]


def _with_zero(sigmas: NoiseLevels | list[float]) -> NoiseLevels:
    return torch.cat([torch.as_tensor(sigmas, dtype=torch.float32), torch.zeros(1)])


def _almost_zero(sigma: float) -> bool:
    return math.isclose(sigma, 0.0, abs_tol=ALMOST_ZERO)
