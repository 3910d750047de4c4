"""Blend modes, and Porter and Duff's ways to lay one transparent picture over another."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from nodes.maths.composite import with_channels_of
from nodes.maths.resize import common_upscale, fit_batch, resize_mask, resize_picture

Pixels = Float[Tensor, "batch height width channels"]
Mask = Float[Tensor, "batch height width"]
BlendMode = Literal["normal", "multiply", "screen", "overlay", "soft_light", "difference"]
PorterDuffMode = Literal[
    "ADD", "CLEAR", "DARKEN", "DST", "DST_ATOP", "DST_IN", "DST_OUT", "DST_OVER", "LIGHTEN", "MULTIPLY", "OVERLAY",
    "SCREEN", "SRC", "SRC_ATOP", "SRC_IN", "SRC_OUT", "SRC_OVER", "XOR",
]  # fmt: skip


def blend(first: Pixels, second: Pixels, factor: float, mode: BlendMode) -> Pixels:
    """From the first to what the mode makes of both; a second of another size is resized (bicubic, centred)."""
    second = with_channels_of(first, second)
    if first.shape[1:3] != second.shape[1:3]:
        second = resize_picture(second, first.shape[2], first.shape[1], "bicubic", "center")
    batch = max(first.shape[0], second.shape[0])
    first, second = fit_batch(first, batch), fit_batch(second, batch)
    return (first * (1.0 - factor) + BLEND_MODES[mode](first, second) * factor).clamp(0.0, 1.0)


def _screen(a: Tensor, b: Tensor) -> Tensor:
    return 1.0 - (1.0 - a) * (1.0 - b)


def _overlay(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(a <= 0.5, 2.0 * a * b, 1.0 - 2.0 * (1.0 - a) * (1.0 - b))


def _soft_light(a: Tensor, b: Tensor) -> Tensor:
    """As in W3C's Compositing and Blending Level 1."""
    lighter = torch.where(a <= 0.25, ((16.0 * a - 12.0) * a + 4.0) * a, a.clamp(min=0.0).sqrt())
    return torch.where(b <= 0.5, a - (1.0 - 2.0 * b) * a * (1.0 - a), a + (2.0 * b - 1.0) * (lighter - a))


BLEND_MODES: dict[BlendMode, Callable[[Tensor, Tensor], Tensor]] = {
    "normal": lambda _, b: b,
    "multiply": torch.mul,
    "screen": _screen,
    "overlay": _overlay,
    "soft_light": _soft_light,
    # One-sided, as in ComfyUI: what would be negative becomes black.
    "difference": torch.sub,
}


class Composite(NamedTuple):
    """A picture, and where it is transparent."""

    pixels: Pixels
    mask: Mask


class Layers(NamedTuple):
    """Colours times opacity, and opacities, of a source s and a destination d; all broadcast."""

    s: Tensor
    d: Tensor
    sa: Tensor
    da: Tensor

    @property
    def union(self) -> Tensor:
        return self.sa + self.da - self.sa * self.da

    @property
    def apart(self) -> Tensor:
        """Either where the other is not."""
        return (1 - self.da) * self.s + (1 - self.sa) * self.d


def porter_duff(source: Pixels, source_mask: Mask, under: Pixels, under_mask: Mask, mode: PorterDuffMode) -> Composite:
    """The source over the destination `under`; masks are 1 where a picture is transparent.

    Everything is resized (bicubic, centred) to the destination. Porter and Duff (1984), and the modes beyond them as
    Android defines them.
    """
    source = with_channels_of(under, source)
    height, width = under.shape[1:3]
    if source.shape[1:3] != (height, width):
        source = resize_picture(source, width, height, "bicubic", "center")
    batch = min(part.shape[0] for part in (source, source_mask, under, under_mask))
    sa, da = (1.0 - _opacity_mask(mask, width, height)[:batch] for mask in (source_mask, under_mask))
    layers = Layers(source[:batch] * sa, under[:batch] * da, sa, da)
    colour, opacity = PORTER_DUFF[mode](layers)
    opacity = opacity.expand(batch, height, width, 1)
    pixels = torch.where(opacity > 1e-5, colour / opacity, torch.zeros_like(opacity)).clamp(0.0, 1.0)
    return Composite(pixels, 1.0 - opacity.squeeze(-1))


def _opacity_mask(mask: Mask, width: int, height: int) -> Float[Tensor, "batch height width 1"]:
    planes = mask.unsqueeze(1)
    if mask.shape[1:] != (height, width):
        planes = common_upscale(planes, width, height, "bicubic", "center")
    return planes.movedim(1, -1)


def _overlaid(p: Layers) -> Tensor:
    dark = 2 * p.d < p.da
    return torch.where(dark, 2 * p.s * p.d, p.sa * p.da - 2 * (p.da - p.d) * (p.sa - p.s))


PORTER_DUFF: dict[PorterDuffMode, Callable[[Layers], tuple[Tensor, Tensor]]] = {
    "ADD": lambda p: ((p.s + p.d).clamp(0, 1), (p.sa + p.da).clamp(0, 1)),
    "CLEAR": lambda p: (torch.zeros_like(p.d), torch.zeros_like(p.da)),
    "DARKEN": lambda p: (p.apart + torch.minimum(p.s, p.d), p.union),
    "DST": lambda p: (p.d, p.da),
    "DST_ATOP": lambda p: (p.sa * p.d + (1 - p.da) * p.s, p.sa),
    "DST_IN": lambda p: (p.d * p.sa, p.sa * p.da),
    "DST_OUT": lambda p: ((1 - p.sa) * p.d, (1 - p.sa) * p.da),
    "DST_OVER": lambda p: (p.d + (1 - p.da) * p.s, p.union),
    "LIGHTEN": lambda p: (p.apart + torch.maximum(p.s, p.d), p.union),
    "MULTIPLY": lambda p: (p.s * p.d, p.sa * p.da),
    "OVERLAY": lambda p: (_overlaid(p), p.union),
    "SCREEN": lambda p: (p.s + p.d - p.s * p.d, p.union),
    "SRC": lambda p: (p.s, p.sa),
    "SRC_ATOP": lambda p: (p.da * p.s + (1 - p.sa) * p.d, p.da),
    "SRC_IN": lambda p: (p.s * p.da, p.sa * p.da),
    "SRC_OUT": lambda p: ((1 - p.da) * p.s, (1 - p.da) * p.sa),
    "SRC_OVER": lambda p: (p.s + (1 - p.sa) * p.d, p.union),
    "XOR": lambda p: (p.apart, (1 - p.da) * p.sa + (1 - p.sa) * p.da),
}


def split_alpha(pixels: Pixels) -> Composite:
    """The colours, and where the picture is transparent."""
    opaque = torch.zeros(pixels.shape[:3], dtype=pixels.dtype, device=pixels.device)
    return Composite(pixels[..., :3], 1.0 - pixels[..., 3] if pixels.shape[-1] > 3 else opaque)


def join_alpha(pixels: Pixels, mask: Mask) -> Float[Tensor, "batch height width 4"]:
    """The colours with an alpha channel, transparent where the mask (fitted to the picture) is 1."""
    batch = max(pixels.shape[0], mask.shape[0])
    opacity = 1.0 - resize_mask(mask, pixels.shape[2], pixels.shape[1]).movedim(1, -1)
    return torch.cat((fit_batch(pixels[..., :3], batch), fit_batch(opacity, batch)), dim=-1)
