"""Colours as brightness and two differences, and back: the full-range YCbCr of JPEG, as kornia and OpenCV round it."""

import torch
from jaxtyping import Float
from torch import Tensor

Pixels = Float[Tensor, "batch height width 3"]
Plane = Float[Tensor, "batch height width 1"]

RED, GREEN, BLUE = 0.299, 0.587, 0.114
"""Shares in the brightness."""


def to_yuv(pixels: Pixels) -> tuple[Plane, Plane, Plane]:
    """Brightness, and how much more blue and red there is than that, a half being none."""
    red, green, blue = pixels[..., :1], pixels[..., 1:2], pixels[..., 2:3]
    y = RED * red + GREEN * green + BLUE * blue
    return y, (blue - y) * 0.564 + 0.5, (red - y) * 0.713 + 0.5


def from_yuv(y: Plane, u: Plane, v: Plane) -> Pixels:
    """The colours again; up to half a step of 8 bits is lost, because the published numbers have three digits."""
    u, v = u - 0.5, v - 0.5
    return torch.cat((y + 1.403 * v, y - 0.714 * v - 0.344 * u, y + 1.773 * u), dim=-1)
