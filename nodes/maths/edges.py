"""Edges of a picture: Canny (1986), with the constants that kornia and ComfyUI have."""

from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from torch import Tensor

from nodes.maths.filters import separable

Planes = Float[Tensor, "batch 1 height width"]
Plane = Bool[np.ndarray, "height width"]

LUMINANCE = (0.299, 0.587, 0.114)
BELL_SIZE = 5  # pixels, with a standard deviation of one
SMALL = 1e-6

# For angles 0°, 45° … 315°: the neighbour in that direction, as (down, right).
NEIGHBOURS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))


def canny(pixels: Float[Tensor, "batch height width channels"], low: float, high: float) -> Planes:
    """1 along edges, else 0: ridges of the gradient above `high`, and what above `low` hangs together with them."""
    grey = (pixels[..., :3] @ torch.tensor(LUMINANCE).to(pixels)).unsqueeze(1)
    across, down = sobel(separable(grey, _bell()))
    steepness = (across.square() + down.square() + SMALL).sqrt()
    ridge = thin(steepness, torch.atan2(down, across))
    return connected(ridge > low, ridge > high).to(pixels)


def _bell() -> Float[Tensor, " 5"]:
    bell = (-(torch.arange(BELL_SIZE) - BELL_SIZE // 2).double().square() / 2).exp()
    return (bell / bell.sum()).float()


def sobel(planes: Planes) -> tuple[Planes, Planes]:
    """Derivatives to the right and downwards, eight times as large as per pixel; the border is repeated."""
    wide = F.pad(planes, (1, 1, 1, 1), mode="replicate")
    slope, smooth = torch.tensor([-1.0, 0.0, 1.0]).to(planes), torch.tensor([1.0, 2.0, 1.0]).to(planes)
    kernels = torch.stack((smooth[:, None] * slope, slope[:, None] * smooth)).unsqueeze(1)
    slopes = F.conv2d(wide, kernels)
    return slopes[:, :1], slopes[:, 1:]


def thin(steepness: Planes, angle: Planes) -> Planes:
    """The gradient where it is steeper than before and behind, looking along it (in steps of 45°); 0 elsewhere."""
    height, width = steepness.shape[-2:]
    direction = (angle * 4 / torch.pi).round().long().remainder(8)
    around = F.pad(steepness, (1, 1, 1, 1))
    moved = torch.cat([around[..., 1 + y : 1 + y + height, 1 + x : 1 + x + width] for y, x in NEIGHBOURS], dim=1)
    before, behind = moved.gather(1, direction), moved.gather(1, (direction + 4) % 8)
    return torch.where((steepness > before) & (steepness > behind), steepness, torch.zeros_like(steepness))


def connected(weak: Bool[Tensor, "batch 1 height width"], strong: Bool[Tensor, "batch 1 height width"]) -> Tensor:
    """What of the weak hangs together with something strong, corners included."""
    kept = [_reached(w.numpy(), s.numpy()) for w, s in zip(weak[:, 0].cpu(), strong[:, 0].cpu(), strict=True)]
    return torch.as_tensor(np.stack(kept)).unsqueeze(1)


def _reached(weak: Plane, strong: Plane) -> Plane:
    labels, count = cast("tuple[Int[np.ndarray, 'height width'], int]", ndimage.label(weak, np.ones((3, 3))))
    reached = np.zeros(count + 1, dtype=bool)
    reached[labels[strong & weak]] = True
    reached[0] = False
    return reached[labels]
