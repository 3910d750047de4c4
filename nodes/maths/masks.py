"""Make, combine, grow and feather masks, and prepare pictures for inpainting and outpainting."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nodes.maths.resize import crop_to_multiple, fit_batch, resize_mask

Mask = Float[Tensor, "batch height width"]
Pixels = Float[Tensor, "batch height width channels"]
Channel = Literal["red", "green", "blue", "alpha"]
Operation = Literal["multiply", "add", "subtract", "and", "or", "xor"]

CHANNELS: tuple[Channel, ...] = ("red", "green", "blue", "alpha")


class InpaintStart(NamedTuple):
    """What inpainting encodes, and where it may paint (0 or 1)."""

    pixels: Float[Tensor, "batch height width channels"]
    noise_mask: Float[Tensor, "masks 1 height width"]


class Outpaint(NamedTuple):
    """The larger canvas, and where it is to be painted."""

    pixels: Float[Tensor, "batch height width channels"]
    mask: Float[Tensor, "1 height width"]


def solid(value: float, width: int, height: int) -> Float[Tensor, "1 {height} {width}"]:
    """A mask of one value everywhere."""
    return torch.full((1, height, width), value, dtype=torch.float32)


def invert(mask: Mask) -> Mask:
    """1 - mask."""
    return 1.0 - mask


def to_picture(mask: Float[Tensor, "*batch height width"]) -> Float[Tensor, "masks height width 3"]:
    """The mask as a grey picture."""
    return _with_batch(mask).unsqueeze(-1).repeat(1, 1, 1, 3)


def from_picture(pixels: Pixels, channel: Channel) -> Mask:
    """One channel of a picture as a mask. ValueError for the alpha of a picture without one."""
    index = CHANNELS.index(channel)
    if index >= pixels.shape[-1]:
        raise ValueError(f"This picture has no {channel} channel; choose one of {', '.join(CHANNELS[:3])}.")
    return pixels[..., index]


def from_colour(pixels: Float[Tensor, "batch height width 3"], colour: int) -> Mask:
    """1 where the pixel, rounded to 8 bits, is the colour 0xRRGGBB, else 0."""
    wanted = torch.tensor([colour >> 16 & 0xFF, colour >> 8 & 0xFF, colour & 0xFF], device=pixels.device)
    return ((pixels.clamp(0.0, 1.0) * 255.0).round() == wanted).all(dim=-1).float()


def grow(
    mask: Float[Tensor, "*batch height width"], expand: int, tapered_corners: bool = True
) -> Float[Tensor, "masks height width"]:
    """Grow (or with a negative number shrink) by that many pixels: with tapered corners to a diamond, else a square."""
    grown = _with_batch(mask).unsqueeze(1)
    # Beyond height + width steps nothing can change any more.
    for _ in range(min(abs(expand), sum(mask.shape[-2:]))):
        grown = _dilate(grown, tapered_corners) if expand > 0 else -_dilate(-grown, tapered_corners)
    return grown.squeeze(1)


def _dilate(
    mask: Float[Tensor, "masks 1 height width"], tapered_corners: bool
) -> Float[Tensor, "masks 1 height width"]:
    """The greatest value of the 3x3 cross (tapered) or square around each pixel."""
    across = F.max_pool2d(mask, (1, 3), stride=1, padding=(0, 1))
    down = F.max_pool2d(mask if tapered_corners else across, (3, 1), stride=1, padding=(1, 0))
    return torch.maximum(across, down)


def feather(
    mask: Float[Tensor, "*batch height width"], left: int, top: int, right: int, bottom: int
) -> Float[Tensor, "masks height width"]:
    """Fade the mask towards its edges, linearly over so many pixels, shifted at the right and bottom as in ComfyUI."""
    height, width = mask.shape[-2:]
    faded = _with_batch(mask) * _ramp(width, left) * _shifted_ramp(width, right)
    return faded * _ramp(height, top)[:, None] * _shifted_ramp(height, bottom)[:, None]


def _ramp(length: int, size: int) -> Float[Tensor, " length"]:
    """Ones, preceded by a rise 1/size, 2/size … 1."""
    factors = torch.ones(length)
    size = min(size, length)
    factors[:size] = torch.arange(1, size + 1) / max(size, 1)
    return factors


def _shifted_ramp(length: int, size: int) -> Float[Tensor, " length"]:
    """Its mirror image moved by one: ComfyUI counts from index -0, so 1/size lands on the *first* place."""
    return _ramp(length, size).roll(-1).flip(0)


def composite(
    destination: Float[Tensor, "*batch height width"],
    source: Float[Tensor, "*batch2 height2 width2"],
    x: int,
    y: int,
    operation: Operation,
) -> Float[Tensor, "masks height width"]:
    """Combine the source, its corner at x, y, with what lies under it; parts outside are cut off. Result 0..1."""
    result = _with_batch(destination).clone()
    source = fit_batch(_with_batch(source), result.shape[0])
    height, width = result.shape[-2:]
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + source.shape[-1], width), min(y + source.shape[-2], height)
    if left < right and top < bottom:
        under = result[:, top:bottom, left:right]
        result[:, top:bottom, left:right] = OPERATIONS[operation](
            under, source[:, top - y : bottom - y, left - x : right - x]
        )
    return result.clamp(0.0, 1.0)


def _logical(operation: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The operation on masks rounded to yes and no (0.5 is no: torch rounds half to even)."""
    return lambda under, over: operation(under.round().bool(), over.round().bool()).float()


OPERATIONS: dict[Operation, Callable[[Tensor, Tensor], Tensor]] = {
    "multiply": torch.mul,
    "add": torch.add,
    "subtract": torch.sub,
    "and": _logical(torch.logical_and),
    "or": _logical(torch.logical_or),
    "xor": _logical(torch.logical_xor),
}


def prepare_inpainting(
    pixels: Pixels, mask: Float[Tensor, "*batch2 h2 w2"], grow_mask_by: int = 6, factor: int = 8
) -> InpaintStart:
    """Cut the picture to multiples of `factor`, blank it to 0.5 under the mask, and grow the mask for the noise."""
    height, width = pixels.shape[1:3]
    soft = crop_to_multiple(resize_mask(mask, width, height), factor, (2, 3))
    pixels = crop_to_multiple(pixels, factor, (1, 2))
    hard = soft.round()
    kept = fit_batch(1.0 - hard, pixels.shape[0]).movedim(1, -1)
    return InpaintStart((pixels - 0.5) * kept + 0.5, _spread(hard, grow_mask_by))


def _spread(mask: Float[Tensor, "masks 1 height width"], size: int) -> Float[Tensor, "masks 1 height width"]:
    """1 wherever a size x size window touches the mask. Windows of even size reach one pixel further up and left."""
    if size == 0:
        return mask
    height, width = mask.shape[-2:]
    # size // 2 is ceil((size - 1) / 2); an even size gives one row and column too many, cut off at the end.
    return F.max_pool2d(mask, size, stride=1, padding=size // 2)[..., :height, :width].clamp(0.0, 1.0).round()


def pad_for_outpainting(pixels: Pixels, left: int, top: int, right: int, bottom: int, feathering: int = 40) -> Outpaint:
    """A grey (0.5) canvas around the picture; the mask is 1 there and fades out over `feathering` pixels inside."""
    inside = _outpaint_fade(pixels.shape[1], pixels.shape[2], left, top, right, bottom, feathering)
    canvas = F.pad(pixels, (0, 0, left, right, top, bottom), value=0.5)
    return Outpaint(canvas, F.pad(inside, (left, right, top, bottom), value=1.0).unsqueeze(0))


def _outpaint_fade(
    height: int, width: int, left: int, top: int, right: int, bottom: int, feathering: int
) -> Float[Tensor, "{height} {width}"]:
    """((f - d) / f)² with d the distance to the nearest padded edge; 0 if the picture has no room for the fade."""
    if not 0 < 2 * feathering < min(height, width):
        return torch.zeros(height, width)
    distance = torch.minimum(_edge_distance(height, top, bottom)[:, None], _edge_distance(width, left, right))
    return (((feathering - distance) / feathering).clamp(min=0.0) ** 2).float()


def _edge_distance(length: int, before: int, after: int) -> Float[Tensor, " length"]:
    """Steps to the nearer edge that is padded: from 0 at the first, but from 1 at the last, as in ComfyUI."""
    place = torch.arange(length, dtype=torch.float64)
    from_start = place if before else torch.full_like(place, length)
    from_end = length - place if after else torch.full_like(place, length)
    return torch.minimum(from_start, from_end)


def _with_batch(mask: Float[Tensor, "*batch height width"]) -> Float[Tensor, "masks height width"]:
    """Masks may come as one plane or with extra axes; here they are always [masks, height, width]."""
    return mask.reshape(-1, *mask.shape[-2:])
