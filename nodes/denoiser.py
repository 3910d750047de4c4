"""The denoiser of a model under a prompt: one pass of the network for all conditionings, guided into one answer."""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

from nodes.added_inputs import Told, shown, told
from nodes.maths.continuous_sampling import ContinuousSampling
from nodes.maths.flow_sampling import FlowSampling
from nodes.maths.guidance import guide, needs_uncond
from nodes.maths.guidance_rules import perpendicular
from nodes.maths.model_sampling import DiscreteSampling, Latents, ModelSampling, NoiseLevels
from nodes.maths.regions import Region, Weight, around, clipped, feathered, from_shares, mixed, resized, whole
from nodes.maths.samplers import Guided
from nodes.models import DenoiseNetwork, ModelPool
from nodes.network_patches import NetworkPatch, RecordedAttention
from nodes.patched_attention import recorded
from nodes.rules import Evaluation, GuidanceRule, Memory, Side
from nodes.values import Area, Conditioning, ContinuousLevels, FlowLevels, Model, Prompt, Shown, ThirdPrompt

Attention = Float[Tensor, "batch queries keys"]
_Side = Side | Literal["third"]
LONGEST_REPEAT = 4
"""Prompts of different length are repeated to a common one, at most this many times, to share a pass."""


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
    """
    sampling = sampling_of(model)
    rules = model.guidance
    networks = _Networks(pool, model, sampling)
    scale = third.scale if third and third.style == "dual" else cfg
    uncond = uncond or needs_uncond(scale) or any(rule.needs_uncond for rule in rules)
    prompts = _sides(positive, negative, third, uncond)
    plans: dict[torch.Size, dict[_Side, list[_Placed]]] = {}
    remembered: MutableMapping[GuidanceRule, Memory] = {} if memory is None else memory

    def predict(
        sides: Collection[_Side], x: Latents, sigma: float, patches: Sequence[NetworkPatch] = ()
    ) -> tuple[dict[_Side, Latents], dict[_Side, Attention]]:
        if x.shape not in plans:
            plans[x.shape] = _plan(model, prompts, kept, x.shape, batch, sampling, pool.device)
        placed = [(side, part) for side in sides for part in plans[x.shape][side] if part.counts_at(sigma)]
        parts = [part for _, part in placed]
        predictions, maps = _predictions(networks.at(sigma, patches), sampling, x, sigma, parts)
        mixtures: dict[_Side, Latents] = {}
        attention: dict[_Side, Attention] = {}
        for side in sides:
            own = [at for at, (its_side, _) in enumerate(placed) if its_side == side]
            mixtures[side] = _mixed([parts[at] for at in own], [predictions[at] for at in own], x)
            if (seen := next((maps[at] for at in own if at in maps and parts[at].region is None), None)) is not None:
                attention[side] = seen
        return mixtures, attention

    def denoise(x: Latents, sigma: float) -> tuple[Latents, Latents]:
        def ask(side: Side, latent: Latents, patches: Sequence[NetworkPatch] = (), /) -> Latents:
            return predict([side], latent, sigma, patches)[0][side]

        record = (RecordedAttention(),) if any(rule.needs_attention for rule in rules) else ()
        predictions, attention = predict(prompts, x, sigma, record)
        found = Evaluation(x, sigma, scale, predictions["cond"], predictions.get("uncond"), ask, remembered, pool)
        found = replace(found, attention=attention.get("uncond"))
        if third is None:
            for rule in rules:
                found = rule.before(found)
            guided = _guided(rules, found)
        else:
            guided = _guided_by_three(rules, found, predictions["third"], cfg, third)
        return guided, guided if found.uncond is None else found.uncond

    return Guided(denoise)


class _Networks:
    """A model's network under the patches that count at a noise level, and others."""

    def __init__(self, pool: ModelPool, model: Model, sampling: ModelSampling) -> None:
        self._pool = pool
        self._model = model
        self._spans = [
            (patch, sampling.percent_to_sigma(patch.end), sampling.percent_to_sigma(patch.start))
            for patch in model.network_patches
        ]
        self._made: dict[tuple[NetworkPatch, ...], DenoiseNetwork] = {}

    def at(self, sigma: float, others: Sequence[NetworkPatch]) -> DenoiseNetwork:
        patches = (*(patch for patch, lowest, highest in self._spans if lowest <= sigma <= highest), *others)
        if patches not in self._made:
            self._made[patches] = self._pool.denoise_network(replace(self._model, network_patches=patches))
        return self._made[patches]


def _sides(
    positive: Conditioning, negative: Conditioning | None, third: ThirdPrompt | None, uncond: bool
) -> dict[_Side, Conditioning]:
    """Which prompts are guided to, which away from, and which are left: those that the formula of the third needs."""
    match third and third.style:
        case "nested" if third and negative:
            return {"cond": positive, "uncond": third.conditioning, "third": negative}
        case "perp_neg" if third and negative:
            return {"cond": positive, "uncond": negative, "third": third.conditioning}
        case _:
            cond: dict[_Side, Conditioning] = {"cond": third.conditioning if third else positive}
            away: dict[_Side, Conditioning] = {"uncond": negative} if negative and uncond else {}
            left: dict[_Side, Conditioning] = {"third": positive} if third else {}
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


@dataclass(frozen=True, slots=True, eq=False)
class _Placed:
    """A prompt in its place: the part of the latent it is asked about (None: all), its weight there, and when."""

    prompt: Prompt
    tokens: Float[Tensor, "batch tokens width"]
    region: Region | None
    weight: Weight
    highest: float
    lowest: float
    told: Told | None
    shown: Latents | None

    def counts_at(self, sigma: float) -> bool:
        return self.lowest <= sigma <= self.highest


def _plan(
    model: Model,
    prompts: Mapping[_Side, Conditioning],
    kept: Shown | None,
    shape: Sequence[int],
    batch: int,
    sampling: ModelSampling,
    device: torch.device,
) -> dict[_Side, list[_Placed]]:
    """Where and when the prompts of each side count in latents of a shape [batch, channels, height, width]."""
    plan: dict[_Side, list[_Placed]] = {
        side: [
            placed
            for prompt in conditioning.prompts
            if (placed := _placed(model, prompt, side, kept, shape, batch, sampling, device)) is not None
        ]
        for side, conditioning in prompts.items()
    }
    for side, other in permutations(plan.values(), 2):
        _add_partners(side, other)
    return plan


def _placed(
    model: Model,
    prompt: Prompt,
    side: _Side,
    kept: Shown | None,
    shape: Sequence[int],
    batch: int,
    sampling: ModelSampling,
    device: torch.device,
) -> _Placed | None:
    """None: no part of the latent is in the prompt's area."""
    height, width = shape[-2:]
    mask = None if prompt.mask is None else resized(prompt.mask, height, width, batch)
    region = None if prompt.area is None else _region(prompt.area, height, width)
    if mask is not None and prompt.area_from_mask:
        region = around(mask)
    inside = clipped(region or whole(height, width), height, width)
    if inside is None:
        return None
    weight: Weight = prompt.strength
    if mask is not None:
        weight = (inside.of(mask)[:, None] * (prompt.mask_strength * prompt.strength)).to(device)
    elif region is not None:
        weight = (feathered(inside, height, width) * prompt.strength).to(device)
    numbers = told(model, prompt, shape, batch, negative=side == "uncond")
    channels = shown(model, prompt, kept, shape, batch)
    return _Placed(
        prompt,
        _for_batch(prompt.tokens, batch).to(device),
        None if region is None else inside,
        weight,
        sampling.percent_to_sigma(prompt.start),
        sampling.percent_to_sigma(prompt.end),
        None if numbers is None else Told(numbers.pooled.to(device), numbers.sizes.to(device)),
        None if channels is None else channels.to(device),
    )


def _region(area: Area, height: int, width: int) -> Region:
    if area.shares:
        return from_shares(area.top, area.left, area.height, area.width, height, width)
    return Region(int(area.top), int(area.left), int(area.height), int(area.width))


def _add_partners(side: Sequence[_Placed], other: list[_Placed]) -> None:
    """Give every prompt that has an area another one to be guided away from there: the smallest around it, cut out."""
    for placed in side:
        if placed.region is None:
            continue
        at = placed.region
        around_it = [each for each in other if each.region is None or each.region.contains(at)]
        if around_it:
            closest = min(around_it, key=lambda each: math.inf if each.region is None else math.prod(each.region.size))
            if closest.region != at:
                like = replace(placed, prompt=closest.prompt, tokens=closest.tokens)
                other.append(replace(like, told=closest.told, shown=closest.shown))


def _mixed(parts: Sequence[_Placed], predictions: Sequence[Latents], like: Latents) -> Latents:
    return mixed(predictions, [part.weight for part in parts], [part.region for part in parts], like)


def _predictions(
    network: DenoiseNetwork, sampling: ModelSampling, x: Latents, sigma: float, parts: Sequence[_Placed]
) -> tuple[dict[int, Latents], dict[int, Attention]]:
    """What the network predicts for each part: the denoised latent, in as few passes as sizes and lengths allow.

    And the attention it recorded, if it does.
    """
    scaled = sampling.scale_input(x, sigma)
    timestep = float(sampling.timestep(sigma))
    predictions: dict[int, Latents] = {}
    attention: dict[int, Attention] = {}
    for group in _passes(parts):
        crops = [_seen(scaled, parts[at]) for at in group]
        numbers = [numbers for at in group if (numbers := parts[at].told) is not None]
        tokens = _alike([parts[at].tokens for at in group])
        times = torch.full((len(tokens),), timestep, device=x.device)
        with recorded() as maps:
            output = network(torch.cat(crops), times, tokens, *([Told.joined(numbers)] if numbers else []))
        for at, part in zip(group, output.chunk(len(group)), strict=True):
            predictions[at] = sampling.denoised(_crop(x, parts[at]), part, sigma)
        for seen in maps:
            attention |= zip(group, seen.chunk(len(group)), strict=True)
    return predictions, attention


def _seen(x: Latents, part: _Placed) -> Latents:
    """What the network sees of a latent: the part's own share, and the channels that it is shown beside it."""
    return _crop(x if part.shown is None else torch.cat([x, part.shown], 1), part)


def _crop(x: Latents, part: _Placed) -> Latents:
    return x if part.region is None else part.region.of(x)


def _passes(parts: Sequence[_Placed]) -> list[list[int]]:
    """Which parts share a pass: those of one size, if their tokens can be repeated to one length."""
    sizes: dict[tuple[int, int] | None, list[int]] = defaultdict(list)
    for at, part in enumerate(parts):
        sizes[part.region and part.region.size].append(at)
    passes: list[list[int]] = []
    for group in sizes.values():
        lengths = [parts[at].tokens.shape[1] for at in group]
        if math.lcm(*lengths) > LONGEST_REPEAT * min(lengths):
            passes += [[at] for at in group]
        else:
            passes.append(group)
    return passes


def _alike(tokens: Sequence[Float[Tensor, "batch tokens width"]]) -> Float[Tensor, "prompts*batch common width"]:
    """Prompts of one pass, repeated to a common length."""
    common = math.lcm(*(each.shape[1] for each in tokens))
    return torch.cat([each.repeat(1, common // each.shape[1], 1) for each in tokens])


def _for_batch(tokens: Float[Tensor, "some tokens width"], batch: int) -> Float[Tensor, "batch tokens width"]:
    repeats = -(-batch // len(tokens))
    return tokens.repeat(repeats, 1, 1)[:batch]
