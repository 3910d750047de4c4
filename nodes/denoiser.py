"""The denoiser of a model under a prompt: one pass of the network for all conditionings, guided into one answer."""

import math
from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from nodes.maths.guidance import guide, needs_uncond, weighted_mean
from nodes.maths.model_sampling import DiscreteSampling, Latents, NoiseLevels
from nodes.maths.samplers import Guided
from nodes.models import ModelPool
from nodes.values import Conditioning, Model, Prompt

LONGEST_REPEAT = 4
"""Prompts of different length are repeated to a common one, at most this many times, to share a pass."""


def sampling_of(model: Model) -> DiscreteSampling:
    """The noise levels a model was trained on."""
    return DiscreteSampling(
        beta_start=model.beta_start,
        beta_end=model.beta_end,
        schedule=model.beta_schedule,
        steps=model.timesteps,
        prediction=model.prediction,
        zero_terminal_snr=model.zero_terminal_snr,
    )


def as_levels(sigmas: NoiseLevels) -> tuple[float, ...]:
    """Noise levels as Python floats, which literals and keys are made of."""
    return tuple(cast("list[float]", sigmas.tolist()))  # pyright: ignore[reportUnknownMemberType]  # torch types it bare


def guided_denoiser(
    pool: ModelPool,
    model: Model,
    positive: Conditioning,
    negative: Conditioning | None,
    cfg: float,
    batch: int,
    uncond: bool = False,
) -> Guided:
    """Maps (x, sigma) to the denoised latent under classifier-free guidance, for `batch` latents at a time.

    What shares a pass depends on the prompts alone, never on free memory, so that a picture does not either.

    Args:
        uncond: whether the prediction under the negative prompt is wanted even where guidance does not need it. Without
            it, or without such a prompt, the guided prediction stands in its place.
    """
    sampling = sampling_of(model)
    network = pool.denoise_network(model)
    negative = negative if uncond or needs_uncond(cfg) else None
    prompts = (*positive.prompts, *(negative.prompts if negative else ()))
    wanted = len(positive.prompts)
    strengths = [prompt.strength for prompt in prompts]
    passes = [tokens.to(pool.device) for tokens in _passes(prompts, batch)]

    def denoise(x: Latents, sigma: float) -> tuple[Latents, Latents]:
        scaled = sampling.scale_input(x, sigma)
        timestep = float(sampling.timestep(sigma))
        predictions: list[Latents] = []
        for tokens in passes:
            count = len(tokens) // len(x)
            times = torch.full((len(tokens),), timestep, device=x.device)
            output = network(scaled.repeat(count, 1, 1, 1), times, tokens)
            predictions += [sampling.denoised(x, part, sigma) for part in output.chunk(count)]
        cond = _mean(predictions[:wanted], strengths[:wanted])
        if negative is None:
            return cond, cond
        unwanted = _mean(predictions[wanted:], strengths[wanted:])
        return guide(cond, unwanted, cfg), unwanted

    return Guided(denoise)


def _mean(predictions: Sequence[Latents], strengths: Sequence[float]) -> Latents:
    """The usual case is one prompt at full strength, which needs no arithmetic and so loses no bits."""
    if len(predictions) == 1 and strengths[0] == 1.0:
        return predictions[0]
    return weighted_mean(predictions, strengths)


def _passes(prompts: Sequence[Prompt], batch: int) -> list[Float[Tensor, "prompts*batch tokens width"]]:
    """The prompts' tokens, gathered into as few passes as their lengths allow."""
    lengths = [prompt.tokens.shape[1] for prompt in prompts]
    common = math.lcm(*lengths)
    if common > LONGEST_REPEAT * min(lengths):
        return [_for_batch(prompt.tokens, batch) for prompt in prompts]
    repeated = [prompt.tokens.repeat(1, common // prompt.tokens.shape[1], 1) for prompt in prompts]
    return [torch.cat([_for_batch(tokens, batch) for tokens in repeated])]


def _for_batch(tokens: Float[Tensor, "some tokens width"], batch: int) -> Float[Tensor, "batch tokens width"]:
    repeats = -(-batch // len(tokens))
    return tokens.repeat(repeats, 1, 1)[:batch]
