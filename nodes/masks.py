"""Masks: make them, combine them, grow and soften them, and turn them into pictures and back."""

from typing import Annotated, Literal

from pydantic import Field

from graph.literals import Widget
from graph.node import node
from nodes.lengths import LONGEST, Pixels, Side
from nodes.values import Image, Mask

# The names stand here as types, so that listing them needs no torch; a test holds them against the tables.
Channel = Literal["red", "green", "blue", "alpha"]
Operation = Literal["multiply", "add", "subtract", "and", "or", "xor"]


@node("SolidMask", category="mask")
def solid_mask(
    value: Annotated[float, Field(ge=0, le=1, description="1 is the area to change."), Widget(step=0.01)] = 1.0,
    width: Side = 512,
    height: Side = 512,
) -> Mask:
    """A mask of one value everywhere."""
    from nodes.maths.masks import solid

    return Mask(solid(value, width, height))


@node("InvertMask", category="mask")
def invert_mask(mask: Mask) -> Mask:
    """What was kept is changed, and what was changed is kept."""
    from nodes.maths.masks import invert

    return Mask(invert(mask.values))


@node("MaskComposite", category="mask")
def composite_masks(
    destination: Mask,
    source: Mask,
    x: Pixels = 0,
    y: Pixels = 0,
    operation: Annotated[
        Operation, Field(description="and, or, xor take a mask for yes where it is above a half.")
    ] = "multiply",
) -> Mask:
    """Combine a mask, its corner at x, y, with what lies under it; the size stays that of the destination."""
    from nodes.maths.masks import composite

    return Mask(composite(destination.values, source.values, x, y, operation))


@node("GrowMask", category="mask", title="Grow Mask")
def grow_mask(
    mask: Mask,
    expand: Annotated[
        int, Field(ge=-LONGEST, le=LONGEST, description="So many pixels; negative ones shrink it."), Widget(step=1)
    ] = 0,
    tapered_corners: Annotated[bool, Field(description="Grow to a diamond; otherwise to a square.")] = True,
) -> Mask:
    """Grow or shrink the masked area."""
    from nodes.maths.masks import grow

    return Mask(grow(mask.values, expand, tapered_corners))


@node("FeatherMask", category="mask")
def feather_mask(mask: Mask, left: Pixels = 0, top: Pixels = 0, right: Pixels = 0, bottom: Pixels = 0) -> Mask:
    """Fade the mask out towards its edges, over so many pixels on each side."""
    from nodes.maths.masks import feather

    return Mask(feather(mask.values, left, top, right, bottom))


@node("ThresholdMask", category="mask")
def threshold_mask(
    mask: Mask,
    value: Annotated[
        float, Field(ge=0, le=1, description="What is above it becomes 1, the rest 0."), Widget(step=0.01)
    ] = (0.5),
) -> Mask:
    """Harden a mask."""
    return Mask((mask.values > value).to(mask.values))


@node("CropMask", category="mask")
def crop_mask(mask: Mask, x: Pixels = 0, y: Pixels = 0, width: Side = 512, height: Side = 512) -> Mask:
    """A part of the mask, its corner at x, y; what would lie outside is left out."""
    if x >= mask.values.shape[2] or y >= mask.values.shape[1]:
        rows, columns = mask.values.shape[1:]
        raise ValueError(f"the corner {x}, {y} lies outside the mask, which is {columns}x{rows}; choose one inside")
    return Mask(mask.values[:, y : y + height, x : x + width].clone())


@node("MaskToImage", category="mask", title="Convert Mask to Image")
def mask_to_image(mask: Mask) -> Image:
    """The mask as a grey picture: white is the area to change."""
    from nodes.maths.masks import to_picture

    return Image(to_picture(mask.values))


@node("ImageToMask", category="mask", title="Convert Image to Mask")
def image_to_mask(image: Image, channel: Channel = "red") -> Mask:
    """One channel of a picture as a mask. For the transparency of a file use LoadImageMask."""
    from nodes.maths.masks import from_picture

    return Mask(from_picture(image.pixels, channel))


@node("ImageColorToMask", category="mask")
def colour_to_mask(
    image: Image,
    color: Annotated[int, Field(ge=0, le=0xFFFFFF, description="0xRRGGBB"), Widget(step=1, display="color")] = 0,
) -> Mask:
    """Where a picture has exactly one colour, in 8 bits."""
    from nodes.maths.masks import from_colour

    return Mask(from_colour(image.rgb, color))
