"""Noise levels as nodes: schedules that choose them, and ways to cut and bend them."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Field

from graph.literals import Between
from graph.node import node
from nodes.values import Latent, Model, Sigmas

if TYPE_CHECKING:
    from nodes.maths.model_sampling import NoiseLevels

# The names stand here as types, so that listing them needs no torch; a test holds them against the tables.
SchedulerName = Literal[
    "simple",
    "sgm_uniform",
    "karras",
    "exponential",
    "ddim_uniform",
    "beta",
    "normal",
    "linear_quadratic",
    "kl_optimal",
]
Spacing = Literal["linear", "cosine", "sine"]
AlignedModel = Literal["SD1", "SDXL", "SVD"]
Steps = Annotated[int, Between(1, 10000, "How many steps from noise to picture.")]
Denoise = Annotated[
    float, Between(0, 1, "How much of the picture is made anew; lower keeps more of the given latent.", step=0.01)
]
StepIndex = Annotated[int, Between(0, 10000)]
Sigma = Annotated[float, Field(ge=0)]
SigmaMax = Annotated[float, Between(0, 5000, "The highest noise level.", step=0.01, round=False)]
SigmaMin = Annotated[float, Between(0, 5000, "The lowest noise level above 0.", step=0.01, round=False)]

SIGMA_MAX = 14.614642
SIGMA_MIN = 0.0291675
"""The ends of Stable Diffusion's own table."""


@node("BasicScheduler", category="sampling/custom_sampling/schedulers")
def basic_scheduler(
    model: Model, scheduler: SchedulerName = "simple", steps: Steps = 20, denoise: Denoise = 1.0
) -> Sigmas:
    """The noise levels a sampler goes through, from the highest to 0."""
    from nodes.denoiser import as_levels, sampling_of
    from nodes.maths.schedules import sigmas_for, steps_of_whole

    # Unlike KSampler, which takes everything above 0.9999 for 1, this node takes only 1 for 1.
    whole = steps if denoise >= 1.0 else steps_of_whole(steps, denoise) if denoise > 0 else 0
    if not whole:
        return Sigmas(())
    return Sigmas(as_levels(sigmas_for(sampling_of(model), scheduler, whole)[-(steps + 1) :]))


@node("KarrasScheduler", category="sampling/custom_sampling/schedulers")
def karras_scheduler(
    steps: Steps = 20,
    sigma_max: SigmaMax = SIGMA_MAX,
    sigma_min: SigmaMin = SIGMA_MIN,
    rho: Annotated[
        float, Between(0, 100, "Higher crowds the levels at the end; 7 is usual.", step=0.01, round=False)
    ] = 7.0,
) -> Sigmas:
    """Noise levels evenly apart in their rho-th root, then 0 (Karras et al. 2022, equation 5)."""
    from nodes.maths import spacings

    return _levels(spacings.karras(steps, sigma_min, sigma_max, rho))


@node("ExponentialScheduler", category="sampling/custom_sampling/schedulers")
def exponential_scheduler(
    steps: Steps = 20, sigma_max: SigmaMax = SIGMA_MAX, sigma_min: SigmaMin = SIGMA_MIN
) -> Sigmas:
    """Noise levels evenly apart in the logarithm, then 0."""
    from nodes.maths import spacings

    return _levels(spacings.exponential(steps, sigma_min, sigma_max))


@node("PolyexponentialScheduler", category="sampling/custom_sampling/schedulers")
def polyexponential_scheduler(
    steps: Steps = 20,
    sigma_max: SigmaMax = SIGMA_MAX,
    sigma_min: SigmaMin = SIGMA_MIN,
    rho: Annotated[
        float, Between(0, 100, "1 is exponential; higher crowds the levels at the end.", step=0.01, round=False)
    ] = 1.0,
) -> Sigmas:
    """Noise levels along a power of the way in the logarithm, then 0 (Crowson 2022)."""
    from nodes.maths import spacings

    return _levels(spacings.polyexponential(steps, sigma_min, sigma_max, rho))


@node("LaplaceScheduler", category="sampling/custom_sampling/schedulers")
def laplace_scheduler(
    steps: Steps = 20,
    sigma_max: SigmaMax = SIGMA_MAX,
    sigma_min: SigmaMin = SIGMA_MIN,
    mu: Annotated[
        float, Between(-10, 10, "The logarithm of the level that most are near.", step=0.1, round=False)
    ] = 0.0,
    beta: Annotated[float, Between(0, 10, "How widely they spread around it.", step=0.1, round=False)] = 0.5,
) -> Sigmas:
    """As many noise levels as steps, crowded around one (Hang et al. 2024). The last is not 0: noise is left over."""
    from nodes.maths import spacings

    return _levels(spacings.laplace(steps, sigma_min, sigma_max, mu, beta))


@node("VPScheduler", category="sampling/custom_sampling/schedulers")
def vp_scheduler(
    steps: Steps = 20,
    beta_d: Annotated[float, Between(0, 5000, "How fast beta grows.", step=0.01, round=False)] = 19.9,
    beta_min: Annotated[float, Between(0, 5000, "Where beta starts.", step=0.01, round=False)] = 0.1,
    eps_s: Annotated[float, Between(0, 1, "The last time above 0.", step=0.0001, round=False)] = 0.001,
) -> Sigmas:
    """Noise levels evenly apart in the time of a variance-preserving process, then 0 (Song et al. 2021)."""
    from nodes.maths import spacings

    return _levels(spacings.variance_preserving(steps, beta_d, beta_min, eps_s))


@node("BetaSamplingScheduler", category="sampling/custom_sampling/schedulers")
def beta_scheduler(
    model: Model,
    steps: Steps = 20,
    alpha: Annotated[float, Between(0, 50, "Lower crowds the levels at the start.", step=0.01, round=False)] = 0.6,
    beta: Annotated[float, Between(0, 50, "Lower crowds the levels at the end.", step=0.01, round=False)] = 0.6,
) -> Sigmas:
    """Noise levels at the quantiles of a beta distribution over the model's timesteps, then 0 (Lee et al. 2024)."""
    from nodes.denoiser import sampling_of
    from nodes.maths import schedules

    return _levels(schedules.beta(sampling_of(model), steps, alpha, beta))


@node("SDTurboScheduler", category="sampling/custom_sampling/schedulers")
def turbo_scheduler(
    model: Model,
    steps: Annotated[int, Between(1, 10, "How many steps from noise to picture.")] = 1,
    denoise: Denoise = 1.0,
) -> Sigmas:
    """The few noise levels that turbo models were distilled at, then 0 (Sauer et al. 2023)."""
    from nodes.denoiser import sampling_of
    from nodes.maths import spacings

    return _levels(spacings.turbo(sampling_of(model), steps, denoise))


@node("AlignYourStepsScheduler", category="sampling/custom_sampling/schedulers")
def aligned_scheduler(model_type: AlignedModel = "SD1", steps: Steps = 10, denoise: Denoise = 1.0) -> Sigmas:
    """Noise levels optimised for a kind of model, for about 10 steps (Sabour et al. 2024)."""
    from nodes.maths import spacings

    return _levels(spacings.aligned(model_type, steps, denoise))


@node("LTXVScheduler", category="sampling/custom_sampling/schedulers")
def shifted_scheduler(
    steps: Steps = 20,
    max_shift: Annotated[float, Between(0, 100, "The shift at 4096 tokens, as a logarithm.", step=0.01)] = 2.05,
    base_shift: Annotated[float, Between(0, 100, "The shift at 1024 tokens, as a logarithm.", step=0.01)] = 0.95,
    stretch: Annotated[
        bool, Field(description="Stretch the levels so that the last one above 0 is `terminal`.")
    ] = True,
    terminal: Annotated[float, Between(0, 0.99, "Where the stretched levels end.", step=0.01)] = 0.1,
    latent: Annotated[
        Latent | None, Field(description="Its pixels are the tokens; without one there are 4096.")
    ] = None,
) -> Sigmas:
    """Noise levels of a rectified flow, shifted towards noise the more, the larger the latent is."""
    from nodes.maths import spacings

    tokens = spacings.SHIFTED_TOKENS[1] if latent is None else latent.samples[0, 0].numel()
    return _levels(spacings.shifted_by_size(steps, tokens, max_shift, base_shift, terminal if stretch else None))


class SplitNoiseLevels(NamedTuple):
    high_sigmas: Sigmas
    low_sigmas: Sigmas


@node("SplitSigmas", category="sampling/custom_sampling/sigmas")
def split_sigmas(sigmas: Sigmas, step: StepIndex = 0) -> SplitNoiseLevels:
    """Cut noise levels in two at a step; the level at the cut is in both."""
    from nodes.maths import sigma_edits

    return _split(sigmas, lambda levels: sigma_edits.split_sigmas(levels, step))


@node("SplitSigmasDenoise", category="sampling/custom_sampling/sigmas")
def split_sigmas_denoise(sigmas: Sigmas, denoise: Denoise = 1.0) -> SplitNoiseLevels:
    """Cut noise levels in two, so that the low ones make up this share of the steps."""
    from nodes.maths import sigma_edits

    return _split(sigmas, lambda levels: sigma_edits.split_sigmas_denoise(levels, denoise))


@node("FlipSigmas", category="sampling/custom_sampling/sigmas")
def flip_sigmas(sigmas: Sigmas) -> Sigmas:
    """The noise levels from the lowest to the highest: to go from a picture to its noise."""
    from nodes.maths import sigma_edits

    return _edited(sigmas, sigma_edits.flip_sigmas)


@node("SetFirstSigma", category="sampling/custom_sampling/sigmas")
def set_first_sigma(
    sigmas: Sigmas, sigma: Annotated[float, Between(0, 20000, step=0.001, round=False)] = 136.0
) -> Sigmas:
    """The noise levels with another first one."""
    from nodes.maths import sigma_edits

    return _edited(sigmas, lambda levels: sigma_edits.set_first_sigma(levels, sigma))


@node("ExtendIntermediateSigmas", category="sampling/custom_sampling/sigmas")
def extend_sigmas(
    sigmas: Sigmas,
    steps: Annotated[int, Between(1, 100, "How many steps to make of one.")] = 2,
    start_at_sigma: Annotated[
        float, Between(-1, 20000, "Only steps from this level or a lower one; -1: from any.", step=0.01, round=False)
    ] = -1.0,
    end_at_sigma: Annotated[
        float, Between(0, 20000, "Only steps from this level or a higher one.", step=0.01, round=False)
    ] = 12.0,
    spacing: Spacing = "linear",
) -> Sigmas:
    """Divide steps into smaller ones, where the noise level is within a range."""
    from nodes.maths import sigma_edits

    start = float("inf") if start_at_sigma < 0 else start_at_sigma
    return _edited(sigmas, lambda levels: sigma_edits.extend_sigmas(levels, steps, start, end_at_sigma, spacing))


class SigmaValue(NamedTuple):
    sigma_value: float


@node("SamplingPercentToSigma", category="sampling/custom_sampling/sigmas")
def percent_to_sigma(
    model: Model,
    sampling_percent: Annotated[float, Between(0, 1, "The share of the model's timesteps.", step=0.0001)] = 0.0,
    return_actual_sigma: Annotated[
        bool, Field(description="Give the model's own ends for 0 and 1, instead of a level above all and 0.")
    ] = False,
) -> SigmaValue:
    """The noise level after a share of the sampling."""
    from nodes.denoiser import sampling_of

    sampling = sampling_of(model)
    ends = {0.0: sampling.sigma_max, 1.0: sampling.sigma_min} if return_actual_sigma else {}
    return SigmaValue(ends.get(sampling_percent, sampling.percent_to_sigma(sampling_percent)))


def lowest_level(sigmas: Sigmas) -> float:
    """The lowest level above 0, also of what follows in the schedule these were cut from; 0 where there is none."""
    return min((sigma for sigma in (*sigmas.values, *sigmas.ahead) if sigma > 0), default=0.0)


def level(sigmas: Sigmas, step: int) -> float:
    """The noise level at a step. Raises ValueError beyond the last."""
    if step >= len(sigmas.values):
        raise ValueError(f"there is no noise level {step}: this schedule has {len(sigmas.values)}, counted from 0")
    return sigmas.values[step]


def _levels(sigmas: "NoiseLevels") -> Sigmas:
    from nodes.denoiser import as_levels

    return Sigmas(as_levels(sigmas))


def _edited(sigmas: Sigmas, edit: "Callable[[NoiseLevels], NoiseLevels]") -> Sigmas:
    import torch

    return _levels(edit(torch.tensor(sigmas.values)))


def _split(sigmas: Sigmas, split: "Callable[[NoiseLevels], tuple[NoiseLevels, NoiseLevels]]") -> SplitNoiseLevels:
    """Both parts; the high one knows the low one, so that a sampler can take the cut as if there were none."""
    import torch

    high, low = map(_levels, split(torch.tensor(sigmas.values)))
    high = replace(high, ahead=(*low.values[1:], *sigmas.ahead))
    return SplitNoiseLevels(high, replace(low, ahead=sigmas.ahead))
