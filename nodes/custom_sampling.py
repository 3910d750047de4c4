"""Sampling put together from its parts: a guider, a sampler, noise levels and noise, each a node of its own."""

from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from graph.literals import Widget
from graph.node import Known, composite, node
from nodes.sampling import Cfg, Seed, denoised, disable_noise, end, random_noise, sample
from nodes.values import Conditioning, Guider, Latent, Model, Noise, SamplerChoice, SamplerState, Sigmas, ThirdPrompt

CFG = Widget(step=0.1, round=0.01)


@node("BasicGuider", category="sampling/custom_sampling/guiders")
def basic_guider(model: Model, conditioning: Conditioning) -> Guider:
    """Follow one prompt, without a negative one: for models that were distilled with their guidance."""
    return Guider(model, conditioning)


@node("CFGGuider", category="sampling/custom_sampling/guiders")
def cfg_guider(model: Model, positive: Conditioning, negative: Conditioning, cfg: Cfg = 8.0) -> Guider:
    """Away from the negative prompt, past the positive one (classifier-free guidance, Ho and Salimans 2021)."""
    return Guider(model, positive, negative, cfg)


@node("DualCFGGuider", category="sampling/custom_sampling/guiders")
def dual_cfg_guider(
    model: Model,
    cond1: Conditioning,
    cond2: Conditioning,
    negative: Conditioning,
    cfg_conds: Annotated[
        float, Field(ge=0, le=100, description="How strongly the picture follows cond1, seen from cond2."), CFG
    ] = 8.0,
    cfg_cond2_negative: Annotated[
        float, Field(ge=0, le=100, description="How strongly it follows cond2 (nested: both), seen from negative."), CFG
    ] = 8.0,
    style: Annotated[
        Literal["regular", "nested"],
        Field(description="regular: both guidances added up; nested: the second one applied to what the first gives."),
    ] = "regular",
) -> Guider:
    """Two guidances in a row, as for editing a picture by an instruction (InstructPix2Pix, Brooks et al. 2023)."""
    third = ThirdPrompt(cond2, "nested" if style == "nested" else "dual", cfg_cond2_negative)
    return Guider(model, cond1, negative, cfg_conds, third)


@node("PerpNegGuider", category="_for_testing", stage="experimental")
def perp_neg_guider(
    model: Model,
    positive: Conditioning,
    negative: Conditioning,
    empty_conditioning: Conditioning,
    cfg: Cfg = 8.0,
    neg_scale: Annotated[
        float, Field(ge=0, le=100, description="How strongly the negative prompt counts."), Widget(step=0.01)
    ] = 1.0,
) -> Guider:
    """Away from the negative prompt only as far as it does not contradict the positive one (Armandpour et al. 2023)."""
    return Guider(model, positive, negative, cfg, ThirdPrompt(empty_conditioning, "perp_neg", neg_scale))


@node("AddNoise", category="_for_testing/custom_sampling/noise")
def add_noise(model: Model, noise: Noise, sigmas: Sigmas, latent_image: Latent) -> Latent:
    """Add the noise that lies between the first and the last level; without levels, none."""
    from nodes import trajectory

    if not sigmas.values:
        return latent_image
    first, *_, last = (*sigmas.values[:1], 0.0) if len(sigmas.values) == 1 else sigmas.values
    return trajectory.diffuse(model, noise, abs(first - last), latent_image, preserve_variance=False)


class GuiderParts(NamedTuple):
    model: Model
    positive: Conditioning
    negative: Conditioning


@node("GuiderParts", category="sampling/stages")
def guider_parts(guider: Guider) -> GuiderParts:
    """What a guider was made of; without a negative prompt, no prompts stand for it."""
    return GuiderParts(guider.model, guider.positive, guider.negative or Conditioning(()))


@node("GuiderThirdPrompt", category="sampling/stages")
def guider_third(guider: Guider) -> ThirdPrompt:
    """The third prompt of a guider that has one. Raises ValueError for others."""
    if guider.third is None:
        raise ValueError("this guider has no third prompt; only DualCFGGuider and PerpNegGuider make one")
    return guider.third


class CustomSample(NamedTuple):
    """Where the sampler arrived, and what its last step took the finished latent for."""

    output: Latent
    denoised_output: Latent


@composite("SamplerCustom", category="sampling/custom_sampling")
def sampler_custom(
    *,
    model: Known[Model],
    add_noise: bool = True,
    noise_seed: Seed = 0,
    cfg: Cfg = 8.0,
    positive: Conditioning,
    negative: Conditioning,
    sampler: Known[SamplerChoice],
    sigmas: Known[Sigmas],
    latent_image: Latent,
) -> CustomSample:
    """Sample under any noise levels: with some of a schedule, another sampler can take over where this one stops."""
    if not sigmas.values:
        return CustomSample(latent_image, latent_image)
    noise = random_noise(noise_seed=noise_seed) if add_noise else disable_noise()
    state = sample(model, noise, noise_seed, sampler, sigmas, cfg, positive, negative, latent_image, model)
    return _finished(model, state, latent_image)


@composite("SamplerCustomAdvanced", category="sampling/custom_sampling")
def sampler_custom_advanced(
    *,
    noise: Known[Noise],
    guider: Known[Guider],
    sampler: Known[SamplerChoice],
    sigmas: Known[Sigmas],
    latent_image: Latent,
) -> CustomSample:
    """Sample with any guider, noise and noise levels. Without noise, an unfinished latent goes on where it stopped."""
    if not sigmas.values:
        return CustomSample(latent_image, latent_image)
    model, positive, negative = guider_parts(guider=guider)
    cfg, unwanted = guider.cfg, None if guider.negative is None else negative
    third = None if guider.third is None else guider_third(guider=guider)
    state = sample(
        model, noise, noise.seed, sampler, sigmas, cfg, positive, unwanted, latent_image, guider.model, third
    )
    return _finished(model, state, latent_image)


def _finished(model: Model, state: SamplerState, latent_image: Latent) -> CustomSample:
    return CustomSample(
        end(model=model, state=state, latent_image=latent_image),
        denoised(model=model, state=state, latent_image=latent_image),
    )
