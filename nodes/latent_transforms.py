"""Latents as arrays: scale by a factor, crop, turn, mirror, add, scale, interpolate, and paste through a mask.

Sizes and places are in pixels of the picture, eight to a latent pixel. A noise mask stays as it is, as in ComfyUI.
"""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from graph.literals import Widget
from graph.node import node
from nodes.image_transforms import FlipMethod, Rotation
from nodes.latents import UpscaleMethod, refuse_unlike, with_samples
from nodes.lengths import LONGEST, PixelsByEight
from nodes.values import Latent, Mask

if TYPE_CHECKING:
    from torch import Tensor

NO_TIME = "the latent is one of pictures, which has no axis t; choose x or y"

PartSide = Annotated[int, Field(ge=64, le=LONGEST), Widget(step=8)]


@node("LatentUpscaleBy", category="latent", title="Upscale Latent By")
def upscale_latent_by(
    samples: Latent,
    upscale_method: UpscaleMethod = "nearest-exact",
    scale_by: Annotated[float, Field(ge=0.01, le=8, description="2: twice as wide and as high."), Widget(step=0.01)] = (
        1.5
    ),
) -> Latent:
    """Resize by a factor."""
    from nodes.maths.resize import common_upscale

    width, height = (max(1, round(samples.samples.shape[axis] * scale_by)) for axis in (3, 2))
    return with_samples(samples, common_upscale(samples.samples, width, height, upscale_method))


@node("LatentCrop", category="latent/transform", title="Crop Latent")
def crop_latent(
    samples: Latent, width: PartSide = 512, height: PartSide = 512, x: PixelsByEight = 0, y: PixelsByEight = 0
) -> Latent:
    """A part of the latent, its corner at x, y."""
    from nodes.maths import transforms

    part = transforms.crop_latent(samples.samples, x // 8, y // 8, width // 8, height // 8)
    return with_samples(samples, part.clone())


@node("LatentRotate", category="latent/transform", title="Rotate Latent")
def rotate_latent(samples: Latent, rotation: Rotation = "none") -> Latent:
    """Turn the latent clockwise."""
    from nodes.maths.transforms import rotate

    return with_samples(samples, rotate(samples.samples, rotation).contiguous())


@node("LatentFlip", category="latent/transform", title="Flip Latent")
def flip_latent(samples: Latent, flip_method: FlipMethod = "x-axis: vertically") -> Latent:
    """Mirror the latent."""
    from nodes.maths.transforms import flip

    return with_samples(samples, flip(samples.samples, flip_method))


@node("LatentConcat", category="latent/advanced")
def join_latents(
    samples1: Latent,
    samples2: Latent,
    dim: Annotated[
        Literal["x", "-x", "y", "-y", "t", "-t"],
        Field(description="x: the second to the right, -x: to the left, y: below, -y: above; t is for videos."),
    ] = "x",
) -> Latent:
    """Two latents side by side, or one above the other."""
    from nodes.maths import transforms

    if dim in ("t", "-t"):
        raise ValueError(NO_TIME)
    refuse_unlike(samples1, samples2)
    across = 2 if dim in ("x", "-x") else 3
    lengths = [samples.samples.shape[across] * 8 for samples in (samples1, samples2)]
    if lengths[0] != lengths[1]:
        side = "height" if across == 2 else "width"
        raise ValueError(f"one is {lengths[0]} pixels in {side} and the other {lengths[1]}; make them alike first")
    return with_samples(samples1, transforms.join_latents(samples1.samples, samples2.samples, dim))


@node("LatentCut", category="latent/advanced")
def cut_latent(
    samples: Latent,
    dim: Annotated[Literal["x", "y", "t"], Field(description="x: columns, y: rows; t is for videos.")] = "x",
    index: Annotated[
        int, Field(ge=-LONGEST, le=LONGEST, description="The first latent pixel; below 0 from the end."), Widget(step=1)
    ] = 0,
    amount: Annotated[int, Field(ge=1, le=LONGEST, description="How many latent pixels."), Widget(step=1)] = 1,
) -> Latent:
    """Some columns or rows of the latent, counted in latent pixels."""
    from nodes.maths import transforms

    if dim == "t":
        raise ValueError(NO_TIME)
    return with_samples(samples, transforms.cut_latent(samples.samples, dim, index, amount).clone())


@node("LatentAdd", category="latent/advanced")
def add_latents(samples1: Latent, samples2: Latent) -> Latent:
    """The sum of two latents; size and batch follow the first."""
    return with_samples(samples1, samples1.samples + _like(samples2, samples1))


@node("LatentSubtract", category="latent/advanced")
def subtract_latents(samples1: Latent, samples2: Latent) -> Latent:
    """The first latent less the second; size and batch follow the first."""
    return with_samples(samples1, samples1.samples - _like(samples2, samples1))


@node("LatentMultiply", category="latent/advanced")
def multiply_latent(
    samples: Latent, multiplier: Annotated[float, Field(ge=-10, le=10), Widget(step=0.01)] = 1.0
) -> Latent:
    """The latent times a number."""
    return with_samples(samples, samples.samples * multiplier)


@node("LatentInterpolate", category="latent/advanced")
def interpolate_latents(
    samples1: Latent,
    samples2: Latent,
    ratio: Annotated[
        float, Field(ge=0, le=1, description="1: only the first, 0: only the second."), Widget(step=0.01)
    ] = (1.0),
) -> Latent:
    """Between two latents, directions and lengths of the channels each by themselves, so that contrast is kept."""
    from nodes.maths.composite import interpolate

    return with_samples(samples1, interpolate(samples1.samples, _like(samples2, samples1), ratio))


@node("LatentCompositeMasked", category="latent")
def composite_latents_masked(
    destination: Latent,
    source: Latent,
    x: PixelsByEight = 0,
    y: PixelsByEight = 0,
    resize_source: Annotated[bool, Field(description="Stretch the source to the destination's size first.")] = False,
    mask: Mask | None = None,
) -> Latent:
    """Lay one latent over another, its corner at x, y; with a mask (of any size), where the mask is 1."""
    from nodes.maths.composite import paste

    refuse_unlike(destination, source)
    values = None if mask is None else mask.values
    pasted = paste(destination.samples, source.samples, x // 8, y // 8, values, resize_source)
    return with_samples(destination, pasted)


def _like(latent: Latent, other: Latent) -> "Tensor":
    """The samples at the other's size (resized and cropped) and batch."""
    from nodes.maths.resize import common_upscale, fit_batch

    refuse_unlike(other, latent)
    samples, height, width = latent.samples, *other.samples.shape[2:]
    if samples.shape[2:] != (height, width):
        samples = common_upscale(samples, width, height, "bilinear", "center")
    return fit_batch(samples, other.samples.shape[0])
