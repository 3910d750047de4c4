"""Sampling, one stage a node: noise, noise levels, the start, a step, the end; and KSampler, which is made of them."""

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from graph.literals import Widget
from graph.node import Known, composite, node
from graph.values import INJECTED
from nodes.models import ModelPool
from nodes.values import Conditioning, Latent, Model, Noise, SamplerChoice, SamplerState, Sigmas

# The names stand here as types, so that listing them needs no torch; a test holds them against the tables.
SamplerName = Literal[
    "euler",
    "euler_ancestral",
    "heun",
    "dpm_2",
    "dpm_2_ancestral",
    "dpmpp_2s_ancestral",
    "dpmpp_sde",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "lcm",
    "ddim",
]
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
Seed = Annotated[
    int,
    Field(ge=0, lt=2**64, description="The same seed gives the same noise, on every machine."),
    Widget(control_after_generate=True),
]
Steps = Annotated[int, Field(ge=1, le=10000, description="How many steps from noise to picture.")]
Cfg = Annotated[
    float,
    Field(ge=0, le=100, description="How strongly the picture follows the prompt; 1 ignores the negative prompt."),
    Widget(step=0.1, round=0.01),
]
Denoise = Annotated[
    float,
    Field(ge=0, le=1, description="How much of the picture is made anew; lower keeps more of the given latent."),
    Widget(step=0.01),
]
StepIndex = Annotated[int, Field(ge=0, le=10000)]
Sigma = Annotated[float, Field(ge=0)]


@node("RandomNoise", category="sampling/custom_sampling/noise")
def random_noise(noise_seed: Seed = 0) -> Noise:
    """Noise drawn from a seed."""
    return Noise(noise_seed)


@node("DisableNoise", category="sampling/custom_sampling/noise")
def disable_noise() -> Noise:
    """No noise: for going on with a latent that is noisy already."""
    return Noise(None)


@node("KSamplerSelect", category="sampling/custom_sampling/samplers")
def select_sampler(sampler_name: SamplerName = "euler") -> SamplerChoice:
    """Choose a sampler by name."""
    return SamplerChoice(sampler_name)


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


class SplitNoiseLevels(NamedTuple):
    high_sigmas: Sigmas
    low_sigmas: Sigmas


@node("SplitSigmas", category="sampling/custom_sampling/sigmas")
def split_sigmas(sigmas: Sigmas, step: StepIndex = 0) -> SplitNoiseLevels:
    """Cut noise levels in two at a step; the level at the cut is in both."""
    return SplitNoiseLevels(Sigmas(sigmas.values[: step + 1]), Sigmas(sigmas.values[step:]))


@node("ForwardDiffusion", category="sampling/stages")
def forward_diffusion(
    model: Model,
    noise: Noise,
    sigmas: Sigmas,
    latent_image: Latent,
    step: Annotated[StepIndex, Field(description="How far: 0 is the highest noise level, the last one is none.")] = 0,
    variance: Annotated[
        Literal["preserving", "exploding"],
        Field(
            description="preserving: scaled to the variance of a picture, to be looked at; exploding: to be sampled."
        ),
    ] = "preserving",
) -> Latent:
    """Add the noise that belongs to one step of the schedule: x + σ·noise (Song et al. 2021, forward process)."""
    from nodes import trajectory

    return trajectory.diffuse(model, noise, level(sigmas, step), latent_image, variance == "preserving")


@node("SamplerStartAt", category="sampling/stages")
def start_at(
    model: Model,
    noise: Noise,
    latent_image: Latent,
    sampler_name: SamplerName,
    sigma: Sigma,
    *,
    seed: Seed = 0,
    max_denoise: Annotated[bool, Field(description="Whether sigma is where training ends: pure noise.")] = False,
    lowest_sigma: Annotated[Sigma, Field(description="The last level above 0, where a Brownian path ends.")] = 0.0,
) -> SamplerState:
    """The state before the first step: the latent under the noise of one level."""
    from nodes import trajectory

    return trajectory.start(model, noise, latent_image, sampler_name, sigma, seed, max_denoise, lowest_sigma)


@node("SamplerStepBetween", category="sampling/stages", progress=True)
def step_between(
    model: Model,
    positive: Conditioning,
    state: SamplerState,
    sigma: Sigma,
    sigma_next: Sigma,
    *,
    negative: Conditioning | None = None,
    cfg: Cfg = 8.0,
    noise: Noise | None = None,
    latent_image: Latent | None = None,
    models: ModelPool = INJECTED,
) -> SamplerState:
    """One sampler step, from one noise level to the next. Its identity is what it depends on, and nothing more."""
    from nodes import trajectory

    return trajectory.step(models, model, positive, negative, cfg, state, sigma, sigma_next, noise, latent_image)


@node("SamplerEnd", category="sampling/stages")
def end(model: Model, state: SamplerState, latent_image: Latent | None = None) -> Latent:
    """The latent a sampler has arrived at; with a noise mask, the area outside it is the given one, exactly."""
    from nodes import trajectory

    return trajectory.end(model, state, latent_image)


@composite("SamplerStart", category="sampling/stages")
def start(
    model: Known[Model],
    noise: Known[Noise],
    sampler: Known[SamplerChoice],
    sigmas: Known[Sigmas],
    latent_image: Latent,
) -> SamplerState:
    """The start of sampling: the latent under the noise of the first level."""
    return _start(model, noise, noise.seed or 0, sampler.name, sigmas.values, latent_image)


@composite("SamplerStep", category="sampling/stages")
def step(
    model: Model,
    positive: Conditioning,
    negative: Conditioning,
    state: SamplerState,
    sigmas: Known[Sigmas],
    *,
    step: Annotated[StepIndex, Field(description="Which step of the schedule: 0 is the first.")] = 0,
    cfg: Cfg = 8.0,
    noise: Annotated[Noise | None, Field(description="The noise of the start; only a noise mask needs it.")] = None,
    latent_image: Latent | None = None,
) -> SamplerState:
    """One step of reverse diffusion: the sampler goes from noise level `step` to the next."""
    return step_between(
        model=model,
        positive=positive,
        negative=None if cfg == 1.0 else negative,
        state=state,
        sigma=level(sigmas, step),
        sigma_next=level(sigmas, step + 1),
        cfg=cfg,
        noise=noise,
        latent_image=latent_image,
    )


@composite("KSampler", category="sampling")
def ksampler(
    *,
    model: Known[Model],
    seed: Seed = 0,
    steps: Steps = 20,
    cfg: Cfg = 8.0,
    sampler_name: SamplerName = "euler",
    scheduler: SchedulerName = "simple",
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latent,
    denoise: Denoise = 1.0,
) -> Latent:
    """From a noised latent to a clean one under a prompt: noise, start, every step, end."""
    from nodes.denoiser import as_levels, sampling_of
    from nodes.maths.schedules import sigmas_for

    sigmas = as_levels(sigmas_for(sampling_of(model), scheduler, steps, denoise, sampler_name))
    noise = random_noise(noise_seed=seed)
    return _sample(model, noise, seed, sampler_name, sigmas, cfg, positive, negative, latent_image)


@composite("KSamplerAdvanced", category="sampling")
def ksampler_advanced(
    *,
    model: Known[Model],
    add_noise: Literal["enable", "disable"] = "enable",
    noise_seed: Seed = 0,
    steps: Steps = 20,
    cfg: Cfg = 8.0,
    sampler_name: SamplerName = "euler",
    scheduler: SchedulerName = "simple",
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latent,
    start_at_step: StepIndex = 0,
    end_at_step: StepIndex = 10000,
    return_with_leftover_noise: Literal["disable", "enable"] = "disable",
) -> Latent:
    """A stretch of a schedule: with leftover noise, another sampler can take over where this one stops."""
    from nodes.denoiser import as_levels, sampling_of
    from nodes.maths.schedules import sigmas_for, slice_sigmas

    whole = sigmas_for(sampling_of(model), scheduler, steps, sampler_name=sampler_name)
    finish = return_with_leftover_noise == "disable"
    sigmas = as_levels(slice_sigmas(whole, start_at_step, end_at_step, force_last_zero=finish))
    noise = random_noise(noise_seed=noise_seed) if add_noise == "enable" else disable_noise()
    # Where another stretch may follow, a Brownian path reaches to the end of the whole schedule, so that both share it.
    lowest = None if finish else lowest_level(as_levels(whole))
    return _sample(model, noise, noise_seed, sampler_name, sigmas, cfg, positive, negative, latent_image, lowest)


def _sample(
    model: Model,
    noise: Noise,
    seed: int,
    sampler_name: SamplerName,
    sigmas: Sequence[float],
    cfg: float,
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latent,
    lowest_sigma: float | None = None,
) -> Latent:
    """Start, every step, end. With no step to take the latent stays as it is."""
    if len(sigmas) < 2:
        return latent_image
    state = _start(model, noise, seed, sampler_name, sigmas, latent_image, lowest_sigma)
    for sigma, sigma_next in zip(sigmas, sigmas[1:], strict=False):
        state = step_between(
            model=model,
            positive=positive,
            negative=None if cfg == 1.0 else negative,
            state=state,
            sigma=sigma,
            sigma_next=sigma_next,
            cfg=cfg,
            noise=noise,
            latent_image=latent_image,
        )
    return end(model=model, state=state, latent_image=latent_image)


def _start(
    model: Model,
    noise: Noise,
    seed: int,
    sampler_name: str,
    sigmas: Sequence[float],
    latent_image: Latent,
    lowest_sigma: float | None = None,
) -> SamplerState:
    import torch

    from nodes.denoiser import sampling_of
    from nodes.maths.samplers import SAMPLERS

    if not sigmas:
        raise ValueError("there are no noise levels to start from; with denoise 0 there is nothing to sample")
    brownian = SAMPLERS[sampler_name].noise == "brownian"
    return start_at(
        model=model,
        noise=noise,
        latent_image=latent_image,
        sampler_name=sampler_name,  # pyright: ignore[reportArgumentType]  # validated when it became a literal
        sigma=sigmas[0],
        seed=seed,
        max_denoise=sampling_of(model).is_max_denoise(torch.tensor(sigmas)),
        # Only a Brownian path looks at its far end: for all others the start does not depend on the schedule's end.
        lowest_sigma=(lowest_sigma or lowest_level(sigmas)) if brownian else 0.0,
    )


def lowest_level(sigmas: Sequence[float]) -> float:
    """The last noise level above 0."""
    return min(sigma for sigma in sigmas if sigma > 0)


def level(sigmas: Sigmas, step: int) -> float:
    """The noise level at a step. Raises ValueError beyond the last."""
    if step >= len(sigmas.values):
        raise ValueError(f"there is no noise level {step}: this schedule has {len(sigmas.values)}, counted from 0")
    return sigmas.values[step]
