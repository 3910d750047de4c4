"""Sampling put together from its parts: a guider, a sampler, noise levels and noise, each a node of its own."""

from typing import NamedTuple

from graph.node import Known, composite, node
from nodes.sampling import Cfg, Seed, denoised, disable_noise, end, random_noise, sample
from nodes.values import Conditioning, Guider, Latent, Model, Noise, SamplerChoice, SamplerState, Sigmas


@node("BasicGuider", category="sampling/custom_sampling/guiders")
def basic_guider(model: Model, conditioning: Conditioning) -> Guider:
    """Follow one prompt, without a negative one: for models that were distilled with their guidance."""
    return Guider(model, conditioning)


@node("CFGGuider", category="sampling/custom_sampling/guiders")
def cfg_guider(model: Model, positive: Conditioning, negative: Conditioning, cfg: Cfg = 8.0) -> Guider:
    """Away from the negative prompt, past the positive one (classifier-free guidance, Ho and Salimans 2021)."""
    return Guider(model, positive, negative, cfg)


class GuiderParts(NamedTuple):
    model: Model
    positive: Conditioning
    negative: Conditioning


@node("GuiderParts", category="sampling/stages")
def guider_parts(guider: Guider) -> GuiderParts:
    """What a guider was made of; without a negative prompt, no prompts stand for it."""
    return GuiderParts(guider.model, guider.positive, guider.negative or Conditioning(()))


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
    state = sample(model, noise, noise.seed, sampler, sigmas, cfg, positive, unwanted, latent_image, guider.model)
    return _finished(model, state, latent_image)


def _finished(model: Model, state: SamplerState, latent_image: Latent) -> CustomSample:
    return CustomSample(
        end(model=model, state=state, latent_image=latent_image),
        denoised(model=model, state=state, latent_image=latent_image),
    )
