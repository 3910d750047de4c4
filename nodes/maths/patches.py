"""Latents as rows of tokens, each of which stands for a square of pixels."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad, pixel_shuffle, pixel_unshuffle

PATCH = 2
"""Pixels of a latent's side that one of Flux's tokens stands for."""

Latents = Float[Tensor, "batch channels height width"]
Tokens = Float[Tensor, "batch tokens width"]
Positions = Float[Tensor, "tokens 3"]


def padded(latents: Latents, side: int) -> Latents:
    """Latents whose sides are multiples of a patch's, continued at the right and below as if they were repeated."""
    height, width = latents.shape[-2:]
    below, right = -height % side, -width % side
    return pad(latents, (0, right, 0, below), mode="circular") if below or right else latents


def to_tokens(latents: Latents, side: int) -> Tokens:
    """The pixels of every square of so many pixels a side, channel by channel, row by row; sides are multiples."""
    return pixel_unshuffle(latents, side).flatten(2).transpose(1, 2)


def from_tokens(tokens: Tokens, rows: int, side: int) -> Latents:
    """Latents of so many rows of tokens."""
    batch, _, width = tokens.shape
    return pixel_shuffle(tokens.transpose(1, 2).reshape(batch, width, rows, -1), side)


def positions(rows: int, columns: int, number: int = 0, top: int = 0, left: int = 0) -> Positions:
    """Where each token lies: the number of its picture, its row and its column, counted from `top` and `left`."""
    found = torch.zeros(rows, columns, 3)
    found[..., 0] = number
    found[..., 1] += torch.arange(top, top + rows)[:, None]
    found[..., 2] += torch.arange(left, left + columns)
    return found.flatten(0, 1)


def side_by_side(sizes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Where pictures of some rows and columns begin that lie on one sheet, which is kept as square as it goes.

    Each lies below those before it, or, where that would make the sheet higher than wide, to their right.
    """
    height = width = 0
    corners: list[tuple[int, int]] = []
    for rows, columns in sizes:
        top, left = (0, width) if rows + height > columns + width else (height, 0)
        corners.append((top, left))
        height, width = max(height, top + rows), max(width, left + columns)
    return corners
