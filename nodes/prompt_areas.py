"""Where and when a prompt counts: areas, masks, and spans of the sampling."""

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from graph.literals import Widget
from graph.node import node
from nodes.lengths import LONGEST, PixelsByEight
from nodes.values import Area, Conditioning, Mask

FACTOR = 8
"""Pixels of a picture that are one of the latent, which is how areas in pixels are counted, whatever the model."""

Length = Annotated[int, Field(ge=64, le=LONGEST, description="In pixels of the picture."), Widget(step=8)]
Share = Annotated[float, Field(ge=0, le=1, description="1 is the whole side."), Widget(step=0.01)]
Strength = Annotated[float, Field(ge=0, le=10, description="Weighed against other prompts."), Widget(step=0.01)]
Moment = Annotated[
    float, Field(ge=0, le=1, description="0: where sampling begins, 1: where it ends."), Widget(step=0.001)
]


@node("ConditioningSetArea", category="conditioning")
def set_area(
    conditioning: Conditioning,
    width: Length = 64,
    height: Length = 64,
    x: PixelsByEight = 0,
    y: PixelsByEight = 0,
    strength: Strength = 1.0,
) -> Conditioning:
    """Have a prompt count in a rectangle alone, fading in over its inner edges."""
    area = Area(height // FACTOR, width // FACTOR, y // FACTOR, x // FACTOR)
    return _with(conditioning, area=area, strength=strength, area_from_mask=False)


@node("ConditioningSetAreaPercentage", category="conditioning")
def set_area_percentage(
    conditioning: Conditioning,
    width: Share = 1.0,
    height: Share = 1.0,
    x: Share = 0.0,
    y: Share = 0.0,
    strength: Strength = 1.0,
) -> Conditioning:
    """Have a prompt count in a rectangle alone, measured in shares of the picture's sides."""
    area = Area(height, width, y, x, shares=True)
    return _with(conditioning, area=area, strength=strength, area_from_mask=False)


@node("ConditioningSetAreaStrength", category="conditioning")
def set_area_strength(conditioning: Conditioning, strength: Strength = 1.0) -> Conditioning:
    """Weigh a prompt against the others it is combined with."""
    return _with(conditioning, strength=strength)


@node("ConditioningSetMask", category="conditioning")
def set_mask(
    conditioning: Conditioning,
    mask: Mask,
    strength: Strength = 1.0,
    set_cond_area: Annotated[
        Literal["default", "mask bounds"],
        Field(description="default: the model sees the whole picture; mask bounds: the rectangle around the mask."),
    ] = "default",
) -> Conditioning:
    """Have a prompt count as much as a mask says, pixel by pixel."""
    bounds = set_cond_area == "mask bounds"
    return _with(conditioning, mask=mask.values, mask_strength=strength, area_from_mask=bounds)


@node("ConditioningSetTimestepRange", category="advanced/conditioning")
def set_timestep_range(conditioning: Conditioning, start: Moment = 0.0, end: Moment = 1.0) -> Conditioning:
    """Have a prompt count during a part of the sampling alone."""
    return _with(conditioning, start=start, end=end)


def _with(conditioning: Conditioning, **changes: object) -> Conditioning:
    return Conditioning(tuple(replace(prompt, **changes) for prompt in conditioning.prompts))
