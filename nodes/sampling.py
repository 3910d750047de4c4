"""Sampling, one stage a node: noise, the start, a step, the end; and KSampler, which is made of them."""

from typing import Annotated, Literal

from pydantic import Field

from graph.literals import Widget
from graph.node import Known, composite, node
from graph.previews import Preview
from graph.values import INJECTED
from nodes.models import ModelPool
from nodes.previews import preview_latent
from nodes.schedules import Denoise, SchedulerName, Sigma, StepIndex, Steps, level, lowest_level
from nodes.values import Conditioning, Latent, Model, Noise, SamplerChoice, SamplerState, Sigmas, ThirdPrompt

# The names stand here as types, so that listing them needs no torch; a test holds them against the tables.
SamplerName = Literal[
    "euler",
    "euler_cfg_pp",
    "euler_ancestral",
    "euler_ancestral_cfg_pp",
    "heun",
    "heunpp2",
    "dpm_2",
    "dpm_2_ancestral",
    "lms",
    "dpm_fast",
    "dpm_adaptive",
    "dpmpp_2s_ancestral",
    "dpmpp_2s_ancestral_cfg_pp",
    "dpmpp_sde",
    "dpmpp_sde_gpu",
    "dpmpp_2m",
    "dpmpp_2m_cfg_pp",
    "dpmpp_2m_sde",
    "dpmpp_2m_sde_gpu",
    "dpmpp_2m_sde_heun",
    "dpmpp_2m_sde_heun_gpu",
    "dpmpp_3m_sde",
    "dpmpp_3m_sde_gpu",
    "ddpm",
    "lcm",
    "ipndm",
    "ipndm_v",
    "deis",
    "res_multistep",
    "res_multistep_cfg_pp",
    "res_multistep_ancestral",
    "res_multistep_ancestral_cfg_pp",
    "gradient_estimation",
    "gradient_estimation_cfg_pp",
    "er_sde",
    "seeds_2",
    "seeds_3",
    "sa_solver",
    "sa_solver_pece",
    "ddim",
    "uni_pc",
    "uni_pc_bh2",
]
Settings = tuple[tuple[str, float], ...]
Seed = Annotated[
    int,
    Field(ge=0, lt=2**64, description="The same seed gives the same noise, on every machine."),
    Widget(control_after_generate=True),
]
Cfg = Annotated[
    float,
    Field(ge=0, le=100, description="How strongly the picture follows the prompt; 1 ignores the negative prompt."),
    Widget(step=0.1, round=0.01),
]


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
    seed: Annotated[Seed | None, Field(description="None: that of an unfinished latent, otherwise 0.")] = 0,
    max_denoise: Annotated[bool, Field(description="Whether sigma is where training ends: pure noise.")] = False,
    lowest_sigma: Annotated[Sigma, Field(description="The last level above 0, where a Brownian path ends.")] = 0.0,
    settings: Annotated[Settings, Field(description="What differs from the sampler's usual settings, by name.")] = (),
    told: Annotated[Settings, Field(description="What it has to know of the model and the whole schedule.")] = (),
    ends: Annotated[
        tuple[float, float] | None,
        Field(description="The ends of the whole schedule, where a noise mask goes by them; none otherwise."),
    ] = None,
) -> SamplerState:
    """The state before the first step: the latent under the noise of one level."""
    from nodes import trajectory

    return trajectory.start(
        model, noise, latent_image, sampler_name, sigma, seed, max_denoise, lowest_sigma, settings, told, ends
    )


@node("SamplerStepBetween", category="sampling/stages", progress=True, lane="device")
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
    ahead: Annotated[
        tuple[float, ...] | None,
        Field(description="Noise levels after the next one, for samplers that look at them; none for all others."),
    ] = None,
    third: ThirdPrompt | None = None,
    models: ModelPool = INJECTED,
    preview: Preview = INJECTED,
) -> SamplerState:
    """One sampler step, from one noise level to the next. Its identity is what it depends on, and nothing more."""
    from nodes import trajectory

    after = trajectory.step(
        models, model, positive, negative, cfg, state, sigma, sigma_next, noise, latent_image, ahead, third
    )
    denoised = after.denoised
    if denoised is not None:
        preview.preview(lambda: preview_latent(model, denoised))
    return after


@node("SamplerEnd", category="sampling/stages")
def end(model: Model, state: SamplerState, latent_image: Latent | None = None) -> Latent:
    """The latent a sampler has arrived at; with a noise mask, the area outside it is the given one, exactly."""
    from nodes import trajectory

    return trajectory.end(model, state, latent_image)


@node("SamplerDenoised", category="sampling/stages")
def denoised(model: Model, state: SamplerState, latent_image: Latent | None = None) -> Latent:
    """What the last step took the finished latent for: where sampling would arrive if it jumped there at once."""
    from nodes import trajectory

    return trajectory.denoised(model, state, latent_image)


@composite("SamplerStart", category="sampling/stages")
def start(
    model: Known[Model],
    noise: Known[Noise],
    sampler: Known[SamplerChoice],
    sigmas: Known[Sigmas],
    latent_image: Latent,
) -> SamplerState:
    """The start of sampling: the latent under the noise of the first level."""
    return _start(model, noise, noise.seed, sampler, sigmas, latent_image, model)


@composite("SamplerStep", category="sampling/stages")
def step(
    model: Known[Model],
    positive: Conditioning,
    negative: Conditioning,
    state: SamplerState,
    sigmas: Known[Sigmas],
    *,
    step: Annotated[StepIndex, Field(description="Which step of the schedule: 0 is the first.")] = 0,
    cfg: Cfg = 8.0,
    noise: Annotated[Noise | None, Field(description="The noise of the start; only a noise mask needs it.")] = None,
    latent_image: Latent | None = None,
    sampler: Annotated[
        Known[SamplerChoice] | None,
        Field(description="That of the start; needed by samplers that look at later noise levels, or at both prompts."),
    ] = None,
) -> SamplerState:
    """One step of reverse diffusion: the sampler goes from noise level `step` to the next."""
    level(sigmas, step + 1)
    return _step(model, state, sampler, sigmas, step, cfg, positive, negative, noise, latent_image, model)


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

    sigmas = Sigmas(as_levels(sigmas_for(sampling_of(model), scheduler, steps, denoise, sampler_name)))
    if len(sigmas.values) < 2:
        return latent_image
    noise = random_noise(noise_seed=seed)
    sampler = SamplerChoice(sampler_name)
    state = sample(model, noise, seed, sampler, sigmas, cfg, positive, negative, latent_image, model)
    return end(model=model, state=state, latent_image=latent_image)


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
    from nodes.maths.schedules import sigmas_for
    from nodes.maths.sigma_edits import slice_sigmas

    whole = sigmas_for(sampling_of(model), scheduler, steps, sampler_name=sampler_name)
    finish = return_with_leftover_noise == "disable"
    levels = as_levels(slice_sigmas(whole, start_at_step, end_at_step, force_last_zero=finish))
    if len(levels) < 2:
        return latent_image
    # Where another stretch may follow, the sampler is told of it, so that both together are the whole.
    sigmas = Sigmas(levels, ahead=() if finish else as_levels(whole)[end_at_step + 1 :])
    noise = random_noise(noise_seed=noise_seed) if add_noise == "enable" else disable_noise()
    sampler = SamplerChoice(sampler_name)
    state = sample(model, noise, noise_seed, sampler, sigmas, cfg, positive, negative, latent_image, model)
    return end(model=model, state=state, latent_image=latent_image)


def sample(
    model: Model,
    noise: Noise,
    seed: int | None,
    sampler: SamplerChoice,
    sigmas: Sigmas,
    cfg: float,
    positive: Conditioning,
    negative: Conditioning | None,
    latent_image: Latent,
    known: Model,
    third: ThirdPrompt | None = None,
) -> SamplerState:
    """The start and every step, for composites to call. Raises ValueError without any noise level.

    Args:
        seed: of the sampler's own noise; None takes that of an unfinished latent.
        known: what `model` is, where that is a link.
    """
    state = _start(model, noise, seed, sampler, sigmas, latent_image, known)
    for index in range(len(sigmas.values) - 1):
        state = _step(model, state, sampler, sigmas, index, cfg, positive, negative, noise, latent_image, known, third)
    return state


def _start(
    model: Model,
    noise: Noise,
    seed: int | None,
    sampler: SamplerChoice,
    sigmas: Sigmas,
    latent_image: Latent,
    known: Model,
) -> SamplerState:
    import torch

    from nodes.denoiser import sampling_of
    from nodes.maths.samplers import SAMPLERS, settings_for

    if not sigmas.values:
        raise ValueError("there are no noise levels to start from; with denoise 0 there is nothing to sample")
    sampling = sampling_of(known)
    whole = (*sigmas.values, *sigmas.ahead)
    brownian = SAMPLERS[sampler.name].noise == "brownian"
    return start_at(
        model=model,
        noise=noise,
        latent_image=latent_image,
        sampler_name=sampler.name,  # pyright: ignore[reportArgumentType]  # validated when it became a literal
        sigma=sigmas.values[0],
        seed=seed,
        max_denoise=sampling.is_max_denoise(torch.tensor(sigmas.values)),
        # Few samplers look at the far end of a schedule: for all others the start does not depend on it.
        lowest_sigma=lowest_level(sigmas) if brownian else 0.0,
        settings=sampler.settings,
        told=settings_for(sampler.name, sampling, whole, grows=bool(dict(sampler.settings).get("scale_ratio"))),
        ends=None if known.differential is None else (whole[0], whole[-1]),
    )


def _step(
    model: Model,
    state: SamplerState,
    sampler: SamplerChoice | None,
    sigmas: Sigmas,
    index: int,
    cfg: float,
    positive: Conditioning,
    negative: Conditioning | None,
    noise: Noise | None,
    latent_image: Latent | None,
    known: Model,
    third: ThirdPrompt | None = None,
) -> SamplerState:
    """A step that is given no more of its surroundings than its sampler looks at."""
    from nodes.maths.samplers import SAMPLERS, lookahead

    uncond = any(rule.needs_uncond for rule in known.guidance)
    uncond = uncond or (sampler is not None and SAMPLERS[sampler.name].uncond)
    seen = lookahead(sampler.name, dict(sampler.settings)) if sampler else 0
    later = (*sigmas.values[index + 2 :], *sigmas.ahead)
    return step_between(
        model=model,
        positive=positive,
        negative=negative if cfg != 1.0 or uncond or third else None,
        state=state,
        sigma=sigmas.values[index],
        sigma_next=sigmas.values[index + 1],
        cfg=cfg,
        noise=noise,
        latent_image=latent_image,
        ahead=later[:seen] if seen else None,
        third=third,
    )
