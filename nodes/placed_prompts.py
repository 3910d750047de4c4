"""Prompts in their places: which part of a latent each is asked about, how much it counts there, and when."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from nodes.added_inputs import Told, shown, told
from nodes.maths.model_sampling import Latents, ModelSampling
from nodes.maths.regions import Region, Weight, around, clipped, feathered, from_shares, resized, whole
from nodes.placed_controls import PlacedControl, placed_controls
from nodes.rules import Side
from nodes.values import Area, Conditioning, Model, Prompt, Shown

AnySide = Side | Literal["third"]


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A prompt in its place: the part of the latent it is asked about (None: all), its weight there, and when."""

    prompt: Prompt
    tokens: Float[Tensor, "batch tokens width"]
    region: Region | None
    weight: Weight
    highest: float
    lowest: float
    told: Told | None
    shown: Latents | None
    controls: tuple[PlacedControl, ...] = ()

    def counts_at(self, sigma: float) -> bool:
        return self.lowest <= sigma <= self.highest

    def steered_by(self, sigma: float) -> list[PlacedControl]:
        return [control for control in self.controls if control.counts_at(sigma)]


def placed_prompts(
    model: Model,
    prompts: Mapping[AnySide, Conditioning],
    kept: Shown | None,
    shape: Sequence[int],
    batch: int,
    sampling: ModelSampling,
    device: torch.device,
) -> dict[AnySide, list[Placed]]:
    """Where and when the prompts of each side count in latents of a shape [batch, channels, height, width]."""
    plan: dict[AnySide, list[Placed]] = {
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
    side: AnySide,
    kept: Shown | None,
    shape: Sequence[int],
    batch: int,
    sampling: ModelSampling,
    device: torch.device,
) -> Placed | None:
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
    numbers = told(model, prompt, shape, batch, negative=side == "uncond", size=inside.size)
    channels = shown(model, prompt, kept, shape, batch)
    return Placed(
        prompt,
        _for_batch(prompt.tokens, batch).to(device),
        None if region is None else inside,
        weight,
        sampling.percent_to_sigma(prompt.start),
        sampling.percent_to_sigma(prompt.end),
        None if numbers is None else numbers.to(device),
        None if channels is None else channels.to(device),
        placed_controls(prompt, None if region is None else inside, shape, batch, sampling, device),
    )


def _region(area: Area, height: int, width: int) -> Region:
    if area.shares:
        return from_shares(area.top, area.left, area.height, area.width, height, width)
    return Region(int(area.top), int(area.left), int(area.height), int(area.width))


def _add_partners(side: Sequence[Placed], other: list[Placed]) -> None:
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


def _for_batch(tokens: Float[Tensor, "some tokens width"], batch: int) -> Float[Tensor, "batch tokens width"]:
    repeats = -(-batch // len(tokens))
    return tokens.repeat(repeats, 1, 1)[:batch]
