"""The denoiser of a model under a prompt: what the network predicts for all conditionings, guided into one answer."""

from collections.abc import Collection, MutableMapping, Sequence
from dataclasses import replace
from typing import cast

import torch

from nodes.maths.continuous_sampling import ContinuousSampling
from nodes.maths.flow_sampling import FlowSampling
from nodes.maths.guidance import guide, needs_uncond
from nodes.maths.guidance_rules import perpendicular
from nodes.maths.model_sampling import DiscreteSampling, Latents, ModelSampling, NoiseLevels
from nodes.maths.samplers import Guided
from nodes.models import ModelPool
from nodes.network_passes import Attention, Networks, mixture, predict
from nodes.network_patches import NetworkPatch, RecordedAttention
from nodes.picture_labels import labelled
from nodes.placed_controls import sharing_controls
from nodes.placed_prompts import AnySide, Placed, placed_prompts
from nodes.rules import Evaluation, GuidanceRule, Memory, Side
from nodes.shared_prompts import sharing_boxes
from nodes.values import Conditioning, ContinuousLevels, FlowLevels, Model, Shown, ThirdPrompt


def sampling_of(model: Model) -> ModelSampling:
    """The noise levels a model was trained on."""
    match model.levels:
        case ContinuousLevels() as levels:
            return ContinuousSampling(levels.lowest, levels.highest, model.prediction, levels.sigma_data, levels.time)
        case FlowLevels() as levels:
            return FlowSampling(levels.shift, levels.multiplier, levels.entries)
        case None:
            return DiscreteSampling(
                beta_start=model.beta_start,
                beta_end=model.beta_end,
                schedule=model.beta_schedule,
                steps=model.timesteps,
                prediction=model.prediction,
                zero_terminal_snr=model.zero_terminal_snr,
                distilled=model.distilled,
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
    memory: MutableMapping[GuidanceRule, Memory] | None = None,
    third: ThirdPrompt | None = None,
    kept: Shown | None = None,
    seed: int = 0,
) -> Guided:
    """Maps (x, sigma) to the denoised latent under classifier-free guidance, for `batch` latents at a time.

    What shares a pass depends on the prompts alone, never on free memory, so that a picture does not either. The
    model's rules of guidance are applied in the reference's order: before guidance, the formula, after it. A third
    prompt leaves out those before.

    Args:
        uncond: whether the prediction under the negative prompt is wanted even where guidance does not need it. Without
            it, or without such a prompt, the guided prediction stands in its place.
        memory: what rules remember of earlier evaluations; it is changed.
        kept: the picture and mask that the latent brings, which a network made for inpainting is shown.
        seed: of the sampling, which the noise on what an unCLIP network is told of pictures goes by.
    """
    sampling = sampling_of(model)
    rules = model.guidance
    networks = Networks(pool, model, sampling)
    scale = third.scale if third and third.style == "dual" else cfg
    uncond = uncond or needs_uncond(scale) or any(rule.needs_uncond for rule in rules)
    if negative is not None:
        negative = sharing_boxes(sharing_controls(negative, positive), positive)
    if third is not None:
        third = replace(third, conditioning=sharing_boxes(sharing_controls(third.conditioning, positive), positive))
    prompts: dict[AnySide, Conditioning] = {
        side: labelled(pool, model, prompt, seed) if model.variant == "unCLIP" else prompt
        for side, prompt in _sides(positive, negative, third, uncond).items()
    }
    plans: dict[torch.Size, dict[AnySide, list[Placed]]] = {}
    remembered: MutableMapping[GuidanceRule, Memory] = {} if memory is None else memory

    def predictions(
        sides: Collection[AnySide], x: Latents, sigma: float, patches: Sequence[NetworkPatch] = ()
    ) -> tuple[dict[AnySide, Latents], dict[AnySide, Attention]]:
        if x.shape not in plans:
            plans[x.shape] = placed_prompts(model, prompts, kept, x.shape, batch, sampling, pool.device)
        placed = [(side, part) for side in sides for part in plans[x.shape][side] if part.counts_at(sigma)]
        parts = [part for _, part in placed]
        found, maps = predict(networks, patches, sampling, x, sigma, parts)
        mixtures: dict[AnySide, Latents] = {}
        attention: dict[AnySide, Attention] = {}
        for side in sides:
            own = [at for at, (its_side, _) in enumerate(placed) if its_side == side]
            mixtures[side] = mixture([parts[at] for at in own], [found[at] for at in own], x)
            if (seen := next((maps[at] for at in own if at in maps and parts[at].region is None), None)) is not None:
                attention[side] = seen
        return mixtures, attention

    def denoise(x: Latents, sigma: float) -> tuple[Latents, Latents]:
        def ask(side: Side, latent: Latents, patches: Sequence[NetworkPatch] = (), /) -> Latents:
            return predictions([side], latent, sigma, patches)[0][side]

        record = (RecordedAttention(),) if any(rule.needs_attention for rule in rules) else ()
        apart = [patch for rule in rules for patch in rule.negative_patches(sigma)] if "uncond" in prompts else []
        predicted, attention = predictions(
            [side for side in prompts if not apart or side != "uncond"], x, sigma, record
        )
        if apart:
            others, recorded = predictions(["uncond"], x, sigma, (*record, *apart))
            predicted, attention = predicted | others, attention | recorded
        found = Evaluation(x, sigma, scale, predicted["cond"], predicted.get("uncond"), ask, remembered, pool)
        found = replace(found, attention=attention.get("uncond"))
        if third is None:
            for rule in rules:
                found = rule.before(found)
            guided = _guided(rules, found)
        else:
            guided = _guided_by_three(rules, found, predicted["third"], cfg, third)
        return guided, guided if found.uncond is None else found.uncond

    return Guided(denoise)


def _sides(
    positive: Conditioning, negative: Conditioning | None, third: ThirdPrompt | None, uncond: bool
) -> dict[AnySide, Conditioning]:
    """Which prompts are guided to, which away from, and which are left: those that the formula of the third needs."""
    match third and third.style:
        case "nested" if third and negative:
            return {"cond": positive, "uncond": third.conditioning, "third": negative}
        case "perp_neg" if third and negative:
            return {"cond": positive, "uncond": negative, "third": third.conditioning}
        case _:
            cond: dict[AnySide, Conditioning] = {"cond": third.conditioning if third else positive}
            away: dict[AnySide, Conditioning] = {"uncond": negative} if negative and uncond else {}
            left: dict[AnySide, Conditioning] = {"third": positive} if third else {}
            return cond | away | left


def _guided(rules: Sequence[GuidanceRule], found: Evaluation) -> Latents:
    """The last formula among the rules or the usual one, and what they make of it."""
    guided = found.cond
    if (uncond := found.uncond) is not None:
        formulas = (rule.combine(found, uncond) for rule in reversed(rules))
        by_rule = next((formula for formula in formulas if formula is not None), None)
        guided = guide(found.cond, uncond, found.scale) if by_rule is None else by_rule
    return _afterwards(rules, found, guided)


def _guided_by_three(
    rules: Sequence[GuidanceRule], found: Evaluation, other: Latents, cfg: float, third: ThirdPrompt
) -> Latents:
    """As the third prompt says; `other` is the prediction of `_sides`' third side."""
    match third.style:
        case "dual":
            return _guided(rules, found) + (other - found.cond) * cfg
        case "nested":
            return guide(_guided(rules, found), other, third.scale)
        case "perp_neg":
            uncond = other if found.uncond is None else found.uncond
            return _afterwards(rules, found, perpendicular(found.cond, uncond, other, cfg, third.scale))


def _afterwards(rules: Sequence[GuidanceRule], found: Evaluation, guided: Latents) -> Latents:
    for rule in rules:
        guided = rule.after(found, guided)
    return guided
