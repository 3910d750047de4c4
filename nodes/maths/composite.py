"""Put pictures and latents on top of each other, next to each other, or mix them through a mask."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nodes.maths.resize import common_upscale, fit_batch, resize_mask, resize_picture

Planes = Float[Tensor, "batch channels height width"]
Pixels = Float[Tensor, "batch height width channels"]
Mask = Float[Tensor, "*masks h w"]


def paste(
    destination: Planes, source: Planes, x: int, y: int, mask: Mask | None = None, resize_source: bool = False
) -> Planes:
    """The source with its corner at x, y over the destination, where the mask (fitted to the source) is 1.

    Parts outside are cut off; the size and batch of the destination stay. Offsets count in its own pixels.
    """
    if resize_source:
        source = common_upscale(source, destination.shape[-1], destination.shape[-2], "bilinear")
    source = fit_batch(source, destination.shape[0])
    if mask is None:
        opacity = torch.ones_like(source[:, :1])
    else:
        opacity = fit_batch(resize_mask(mask, source.shape[-1], source.shape[-2]), source.shape[0])
    return _lay_over(destination, source, opacity, x, y)


def paste_picture(
    destination: Pixels, source: Pixels, x: int, y: int, mask: Mask | None = None, resize_source: bool = False
) -> Pixels:
    """`paste` for pictures, whose channels come last and are those of the destination."""
    source = with_channels_of(destination, source)
    return paste(destination.movedim(-1, 1), source.movedim(-1, 1), x, y, mask, resize_source).movedim(1, -1)


def paste_latent(destination: Planes, source: Planes, x: int, y: int, feather: int = 0) -> Planes:
    """Latents over latents, fading in over `feather` latent pixels on every side that is not the border."""
    height, width = destination.shape[-2:]
    source = fit_batch(source, destination.shape[0])[..., : max(height - y, 0), : max(width - x, 0)]
    rows = _fade(source.shape[-2], feather, start=y != 0, end=y + source.shape[-2] < height)
    columns = _fade(source.shape[-1], feather, start=x != 0, end=x + source.shape[-1] < width)
    opacity = (rows[:, None] * columns).to(source).expand(source.shape[0], 1, -1, -1)
    return _lay_over(destination, source, opacity, x, y)


def _fade(length: int, size: int, start: bool, end: bool) -> Float[Tensor, " length"]:
    """Ones, with a linear rise 1/size, 2/size … at the start, and its mirror image at the end."""
    factors = torch.ones(length)
    rise = (torch.arange(1, size + 1) / max(size, 1))[:length]
    if start:
        factors[: len(rise)] *= rise
    if end:
        factors[length - len(rise) :] *= rise.flip(0)
    return factors


def _lay_over(destination: Planes, source: Planes, opacity: Float[Tensor, "batch 1 h w"], x: int, y: int) -> Planes:
    result = destination.clone()
    left, top = max(x, 0), max(y, 0)
    right = min(x + source.shape[-1], destination.shape[-1])
    bottom = min(y + source.shape[-2], destination.shape[-2])
    if left < right and top < bottom:
        seen = (..., slice(top - y, bottom - y), slice(left - x, right - x))
        under = (..., slice(top, bottom), slice(left, right))
        result[under] = opacity[seen] * source[seen] + (1.0 - opacity[seen]) * destination[under]
    return result


def blend_latents(first: Planes, second: Planes, factor: float) -> Planes:
    """first · factor + second · (1 - factor); a second of another size is resized (bicubic, centred) to the first."""
    second = _match(second, first) if first.shape[-2:] != second.shape[-2:] else second
    batch = max(first.shape[0], second.shape[0])
    return fit_batch(first, batch) * factor + fit_batch(second, batch) * (1.0 - factor)


def interpolate(first: Planes, second: Planes, ratio: float) -> Planes:
    """ratio of the first: the directions of the channel vectors and their lengths are mixed separately."""
    length_1, length_2 = _length(first), _length(second)
    mixed = (first / length_1).nan_to_num() * ratio + (second / length_2).nan_to_num() * (1.0 - ratio)
    return (mixed / _length(mixed)).nan_to_num() * (length_1 * ratio + length_2 * (1.0 - ratio))


def _length(samples: Planes) -> Float[Tensor, "batch 1 height width"]:
    return samples.square().sum(dim=1, keepdim=True).sqrt()


def blend_by_mask(first: Planes, second: Planes, mask: Mask) -> Planes:
    """first where the mask is 0, second where it is 1. Mask and second are resized to the first, batches repeated."""
    second = _match(second, first) if first.shape[-2:] != second.shape[-2:] else second
    weight = resize_mask(mask, first.shape[-1], first.shape[-2])
    batch = max(first.shape[0], second.shape[0], weight.shape[0])
    weight = fit_batch(weight, batch)
    return fit_batch(first, batch) * (1.0 - weight) + fit_batch(second, batch) * weight


def blend_pictures_by_mask(first: Pixels, second: Pixels, mask: Mask) -> Pixels:
    """`blend_by_mask` for pictures: channels last, and the result stays in 0..1."""
    second = with_channels_of(first, second)
    # The bicubic resize of a second picture of another size may overshoot.
    return blend_by_mask(first.movedim(-1, 1), second.movedim(-1, 1), mask).movedim(1, -1).clamp(0.0, 1.0)


def _match(second: Planes, first: Planes) -> Planes:
    return common_upscale(second, first.shape[-1], first.shape[-2], "bicubic", "center")


def batch_pictures(first: Pixels, second: Pixels) -> Pixels:
    """One batch of both; a second of another size is resized (bilinear, centred) to the first."""
    height, width = first.shape[1:3]
    first, second = with_same_channels((first, second))
    if second.shape[1:3] != first.shape[1:3]:
        second = resize_picture(second, width, height, "bilinear", "center")
    return torch.cat((first, second), dim=0)


def with_channels_of(picture: Pixels, other: Pixels) -> Pixels:
    """The other without alpha where the picture has none, or with an opaque one where it has one."""
    return F.pad(other, (0, picture.shape[-1] - other.shape[-1]), value=1.0)


def with_same_channels(pictures: Sequence[Pixels]) -> list[Pixels]:
    """The pictures with an opaque alpha channel, if any of them has one."""
    channels = max(picture.shape[-1] for picture in pictures)
    return [F.pad(picture, (0, channels - picture.shape[-1]), value=1.0) for picture in pictures]
