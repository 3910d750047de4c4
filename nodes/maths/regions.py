"""Prompts for parts of a picture: the rectangle of the latent each is asked about, and how much it counts there."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from nodes.maths.guidance import NO_WEIGHT
from nodes.maths.model_sampling import Latents

FEATHER = 8
"""Pixels of the latent over which a prompt without a mask fades in at those edges of its area that lie inside."""
SMALLEST = 8
"""Pixels of the latent of a side of the rectangle around a mask, at least."""

Weight = float | Float[Tensor, "batch 1 height width"]
"""How much a prediction counts, as a whole or pixel by pixel of its region."""


class Region(NamedTuple):
    """A rectangle in pixels of the latent."""

    top: int
    left: int
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width

    def of(self, x: Float[Tensor, "*any height width"]) -> Float[Tensor, "*any region_height region_width"]:
        """This part of a latent or a map over it; a view."""
        return x[..., self.top : self.top + self.height, self.left : self.left + self.width]

    def contains(self, other: "Region") -> bool:
        return (
            self.top <= other.top
            and self.left <= other.left
            and self.top + self.height >= other.top + other.height
            and self.left + self.width >= other.left + other.width
        )


def whole(height: int, width: int) -> Region:
    return Region(0, 0, height, width)


def clipped(region: Region, height: int, width: int) -> Region | None:
    """What of a region lies inside a latent; None: nothing."""
    top, left = max(region.top, 0), max(region.left, 0)
    bottom, right = min(region.top + region.height, height), min(region.left + region.width, width)
    return Region(top, left, bottom - top, right - left) if bottom > top and right > left else None


def from_shares(top: float, left: float, tall: float, wide: float, height: int, width: int) -> Region:
    """The region that has these shares (0…1) of the sides of a latent; at least one pixel high and wide."""
    return Region(round(top * height), round(left * width), max(1, round(tall * height)), max(1, round(wide * width)))


def around(mask: Float[Tensor, "masks height width"]) -> Region:
    """The smallest region with everything in it that is not 0 in any of the masks, but not below 8 × 8."""
    height, width = mask.shape[-2:]
    marked = mask.abs().amax(dim=0) > 0
    rows, columns = marked.any(dim=1).nonzero()[:, 0], marked.any(dim=0).nonzero()[:, 0]
    if not len(rows):
        return Region(0, 0, min(SMALLEST, height), min(SMALLEST, width))
    top, tall = _span(int(rows[0]), int(rows[-1]), height)
    left, wide = _span(int(columns[0]), int(columns[-1]), width)
    return Region(top, left, tall, wide)


def _span(first: int, last: int, length: int) -> tuple[int, int]:
    size = min(max(last - first + 1, SMALLEST), length)
    return min(first, length - size), size


def resized(
    mask: Float[Tensor, "masks mask_height mask_width"], height: int, width: int, batch: int
) -> Float[Tensor, "batch height width"]:
    """Masks of the size of the latent, one for each sample: cut to the batch, or repeated."""
    planes = interpolate(mask[:batch, None].float(), size=(height, width), mode="bilinear")[:, 0]
    return planes.repeat(-(-batch // len(planes)), 1, 1)[:batch]


def feathered(region: Region, height: int, width: int) -> Float[Tensor, "1 1 region_height region_width"]:
    """1, falling in a straight line towards the edges of a region that are not those of the latent."""
    weight = torch.ones(1, 1, *region.size)
    for side, (begin, size, length) in enumerate(
        [(region.top, region.height, height), (region.left, region.width, width)], start=2
    ):
        reach = min(FEATHER, size // 4)
        ramp = torch.ones(size)
        for at in range(reach):
            factor = (at + 1) / reach
            if begin > 0:
                ramp[at] *= factor
            if begin + size < length:
                ramp[size - 1 - at] *= factor
        weight = weight * ramp.reshape([-1 if side == axis else 1 for axis in range(4)])
    return weight


def mixed(
    predictions: Sequence[Latents], weights: Sequence[Weight], regions: Sequence[Region | None], like: Latents
) -> Latents:
    """Predictions of parts of a latent, mixed pixel by pixel in proportion to their weights; zero where nothing counts.

    Args:
        regions: what each is a prediction of; None: the whole.
    """
    if len(predictions) == 1 and regions[0] is None and isinstance(weights[0], float) and weights[0] == 1.0:
        return predictions[0]  # as is usual; needs no arithmetic and so loses no bits
    total, count = torch.zeros_like(like), torch.full_like(like[:, :1], NO_WEIGHT)
    for prediction, weight, region in zip(predictions, weights, regions, strict=True):
        place = region or whole(*like.shape[-2:])
        place.of(total).add_(prediction * weight)
        place.of(count).add_(weight)
    return total / count
