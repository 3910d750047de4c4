"""Pictures that steer prompts, in their places: as large as their part of the latent, and when they count."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from nodes.maths.model_sampling import ModelSampling
from nodes.maths.regions import Region
from nodes.maths.resize import common_upscale, fit_batch
from nodes.shared_prompts import sharing
from nodes.values import Conditioning, Control, ControlNet, Prompt

FACTOR = 8
"""Pixels of a side of a picture for each pixel of the latent."""


@dataclass(frozen=True, slots=True, eq=False)
class PlacedControl:
    """A picture of the size that a network takes for its part of the latent, how strongly it steers, and when."""

    network: ControlNet
    hint: Float[Tensor, "batch 3 height width"]
    strength: float
    highest: float
    lowest: float

    @property
    def way(self) -> Hashable:
        """What has to be alike for two pictures to share a pass of the network."""
        return self.network, self.strength

    def counts_at(self, sigma: float) -> bool:
        return self.lowest <= sigma <= self.highest


def placed_controls(
    prompt: Prompt,
    region: Region | None,
    shape: Sequence[int],
    batch: int,
    sampling: ModelSampling,
    device: torch.device,
) -> tuple[PlacedControl, ...]:
    """A prompt's controls for a region (None: all) of latents of a shape [batch, channels, height, width]."""
    return tuple(
        PlacedControl(
            control.network,
            fit_batch(_hint(control, region, shape[-2], shape[-1]), batch).to(device),
            control.strength,
            sampling.percent_to_sigma(control.start),
            sampling.percent_to_sigma(control.end),
        )
        for control in prompt.controls
        if control.strength
    )


def _hint(
    control: Control, region: Region | None, height: int, width: int
) -> Float[Tensor, "some 3 hint_height hint_width"]:
    """The picture, cut down to the proportions of the region, or of the latent, and resized.

    The whole of it for every region: it is made for the prompt, as ComfyUI has it, and not for a place of the picture.
    """
    hint, multiple = control.picture.movedim(-1, 1), control.network.multiple
    if region is not None:
        height, width = region.size
    height, width = (-(-side * FACTOR // multiple) * multiple for side in (height, width))
    return common_upscale(hint, width, height, "nearest-exact", "center")


def sharing_controls(conditioning: Conditioning, positive: Conditioning) -> Conditioning:
    """The prompts of another side, steered by what the positive ones share, if nothing steers any of them already."""
    return sharing(
        conditioning,
        positive,
        lambda each: each.shares_controls and bool(each.controls),
        lambda each: bool(each.controls),
        lambda taking, each: replace(taking, controls=each.controls),
    )
