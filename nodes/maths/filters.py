"""Filters of pictures: noise, blur, sharpen, morphology and quantisation."""

from collections.abc import Callable
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image
from scipy import ndimage
from torch import Tensor

Pixels = Float[Tensor, "batch height width channels"]
Planes = Float[Tensor, "batch channels height width"]
Morphology = Literal["erode", "dilate", "open", "close", "gradient", "bottom_hat", "top_hat"]
Dither = Literal["none", "floyd-steinberg", "bayer-2", "bayer-4", "bayer-8", "bayer-16"]


def add_noise(pixels: Pixels, seed: int, strength: float) -> Pixels:
    """Gaussian noise from a seed on top of a picture, cut off at 0 and 1."""
    generator = torch.Generator("cpu").manual_seed(seed)
    noise = torch.randn(pixels.shape, generator=generator).to(pixels)
    return (pixels + strength * noise).clamp(0.0, 1.0)


def gaussian(radius: int, sigma: float) -> Float[Tensor, " size"]:
    """A bell of 2 · radius + 1 values that add up to 1; sigma is measured in radii, as in ComfyUI."""
    bell = (-torch.linspace(-1, 1, 2 * radius + 1, dtype=torch.float64).square() / (2 * sigma**2)).exp()
    return (bell / bell.sum()).float()


def blur(pixels: Pixels, radius: int, sigma: float) -> Pixels:
    """Convolved with a Gaussian (sigma in radii); at its borders the picture is mirrored."""
    return separable(pixels.movedim(-1, 1), gaussian(radius, sigma)).movedim(1, -1)


def sharpen(pixels: Pixels, radius: int, sigma: float, alpha: float) -> Pixels:
    """What a blur takes away added ten times `alpha`-fold, cut off at 0 and 1."""
    return (pixels + 10.0 * alpha * (pixels - blur(pixels, radius, sigma))).clamp(0.0, 1.0)


def separable(planes: Planes, kernel: Float[Tensor, " size"]) -> Planes:
    """Convolved with an odd symmetric kernel along both axes; at the borders mirrored about the last pixel."""
    radius, kernel = len(kernel) // 2, kernel.to(planes)
    for axis in (2, 3):
        mirrored = planes.index_select(axis, _mirrored(planes.shape[axis], radius).to(planes.device))
        shape = [1, 1, 1, 1]
        shape[axis] = len(kernel)
        lone = mirrored.reshape(-1, 1, *mirrored.shape[2:])
        planes = F.conv2d(lone, kernel.reshape(shape)).reshape(*planes.shape)
    return planes


def _mirrored(length: int, margin: int) -> Tensor:
    """Indices that go on beyond both ends by turning round there, as often as it takes."""
    period = max(2 * (length - 1), 1)
    steps = torch.arange(-margin, length + margin).remainder(period)
    return torch.minimum(steps, (period - steps).remainder(period)) if length > 1 else torch.zeros_like(steps)


def morphology(pixels: Pixels, operation: Morphology, size: int) -> Pixels:
    """Greyscale morphology of every channel with a square; what lies outside the picture does not count."""
    return torch.as_tensor(MORPHOLOGY[operation](pixels.cpu().numpy(), size)).to(pixels)


Planar = Float[np.ndarray, "batch height width channels"]


def _erode(pixels: Planar, size: int) -> Planar:
    return _extreme(ndimage.minimum_filter, pixels, size, np.inf)


def _dilate(pixels: Planar, size: int) -> Planar:
    return _extreme(ndimage.maximum_filter, pixels, size, -np.inf)


def _extreme(function: Any, pixels: Planar, size: int, outside: float) -> Planar:
    return cast(Planar, function(pixels, size=(1, size, size, 1), mode="constant", cval=outside))


def _open(pixels: Planar, size: int) -> Planar:
    return _dilate(_erode(pixels, size), size)


def _close(pixels: Planar, size: int) -> Planar:
    return _erode(_dilate(pixels, size), size)


MORPHOLOGY: dict[Morphology, Callable[[Planar, int], Planar]] = {
    "erode": _erode,
    "dilate": _dilate,
    "open": _open,
    "close": _close,
    "gradient": lambda pixels, size: _dilate(pixels, size) - _erode(pixels, size),
    "bottom_hat": lambda pixels, size: _close(pixels, size) - pixels,
    "top_hat": lambda pixels, size: pixels - _open(pixels, size),
}


def quantize(pixels: Pixels, colours: int, dither: Dither) -> Float[Tensor, "batch height width 3"]:
    """At most so many colours in each picture (median cut), with or without dithering."""
    from nodes.picture_files import to_uint8

    found = [_quantized(Image.fromarray(picture), colours, dither) for picture in to_uint8(pixels[..., :3])]
    return torch.as_tensor(np.stack(found)).to(pixels) / 255.0


def _quantized(image: Image.Image, colours: int, dither: Dither) -> UInt8[np.ndarray, "height width 3"]:
    palette = image.quantize(colours)
    if dither.startswith("bayer"):
        image = _bayer_dithered(image, palette, int(dither.removeprefix("bayer-")))
    spread = Image.Dither.FLOYDSTEINBERG if dither == "floyd-steinberg" else Image.Dither.NONE
    return np.array(image.quantize(colours, palette=palette, dither=spread).convert("RGB"))


def _bayer_dithered(image: Image.Image, palette: Image.Image, order: int) -> Image.Image:
    """A threshold pattern added, as strong as two steps between colours spread evenly."""
    count = len(palette.getpalette() or ()) // 3 or 1
    pattern = bayer(order) * (512.0 / count) + 0.5
    height, width = image.height, image.width
    tiled = np.tile(pattern, (-(-height // order), -(-width // order)))[:height, :width, None]
    return Image.fromarray((np.asarray(image, dtype=np.float32) + tiled).clip(0, 255).astype(np.uint8))


def bayer(order: int) -> Float[np.ndarray, "order order"]:
    """Bayer's matrix (1973) of a power of two, within -1/2 and 1/2, its mean 0."""
    if order == 1:
        return np.zeros((1, 1))
    coarser, steps = bayer(order // 2), np.array([[-1.5, 0.5], [1.5, -0.5]]) / order**2
    return np.block([[coarser + step for step in row] for row in steps])
