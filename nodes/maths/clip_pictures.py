"""Pictures as CLIP's encoders were trained to see them, Radford et al. (2021), and SigLIP's, Zhai et al. (2023)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

MEAN = (0.48145466, 0.4578275, 0.40821073)
SPREAD = (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)
"""SigLIP's mean and spread."""


def clip_pictures(
    pixels: Float[Tensor, "batch height width 3"],
    side: int,
    crop: bool,
    mean: Sequence[float] = MEAN,
    spread: Sequence[float] = SPREAD,
) -> Float[Tensor, "batch 3 {side} {side}"]:
    """Pictures of 0…1 at the size of an encoder, rounded to 256 values and normalised.

    Args:
        crop: keep the proportions and cut the middle out; otherwise all of the picture is squeezed into the square.
    """
    planes = pixels.movedim(-1, 1)
    if planes.shape[-2:] != (side, side):
        size = _covering(planes.shape[-2:], side) if crop else [side, side]
        planes = F.interpolate(planes, size, mode="bicubic", antialias=True)
        top, left = (size[0] - side) // 2, (size[1] - side) // 2
        planes = planes[..., top : top + side, left : left + side]
    planes = (planes * 255).clamp(0, 255).round() / 255
    centre, scale = (torch.tensor(values, device=planes.device)[:, None, None] for values in (mean, spread))
    return (planes - centre) / scale


def _covering(size: Sequence[int], side: int) -> list[int]:
    """Height and width in proportion, the shorter of which is `side`."""
    return [round(length * side / min(size)) for length in size]
