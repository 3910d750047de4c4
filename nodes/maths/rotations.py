"""Adapters that turn a weight's outputs: OFT, in blocks (Qiu et al. 2023), and BOFT, in butterflies (Liu et al. 2024).

Each block B stands for a rotation (I + Q)(I - Q)^-1 with Q = B - B^T, Cayley's. Named and laid out as in LyCORIS, whose
`alpha`, where it is not 0, bounds the length of all Q together to `alpha` for each output.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor


def turned(
    weight: Float[Tensor, "rows ..."], parts: Mapping[str, Tensor], strength: float
) -> Float[Tensor, "rows ..."]:
    """A weight, turned by `oft_blocks` as far as the strength says and then made as long as `rescale` says.

    Blocks of shape [blocks, size, size] turn stretches of outputs; of [factors, blocks, size, size] ever wider spread
    ones, factor after factor. Raises RuntimeError for blocks that do not make up the outputs.
    """
    rotations = _rotations(parts["oft_blocks"], float(parts.get("alpha", torch.zeros(()))) * len(weight))
    rotations = strength * rotations + (1 - strength) * torch.eye(rotations.shape[-1]).to(rotations)
    if rotations.ndim == 3:
        found = (rotations.mT @ weight.reshape(*rotations.shape[:2], -1)).reshape(weight.shape)
    else:
        found = weight.flatten(1)
        for level, blocks in enumerate(rotations):
            found = _butterfly(found, blocks, 2**level * (rotations.shape[-1] // 2))
        found = found.reshape(weight.shape)
    if "rescale" in parts:
        length = 1 + strength * (parts["rescale"].reshape(-1, *[1] * (weight.ndim - 1)) - 1)
        found = found * length
    return found


def _rotations(blocks: Float[Tensor, "... size size"], longest: float) -> Float[Tensor, "... size size"]:
    skew = blocks - blocks.mT
    length = skew.square().sum().sqrt()
    if 0 < longest < length:
        skew = skew * (longest / length)
    identity = torch.eye(blocks.shape[-1]).to(blocks)
    return cast(Tensor, cast(Any, torch).linalg.solve((identity - skew), identity + skew, left=False))


def _butterfly(
    rows: Float[Tensor, "rows columns"], blocks: Float[Tensor, "blocks size size"], stride: int
) -> Float[Tensor, "rows columns"]:
    """Each block turns the outputs of pairs that lie `stride` apart."""
    columns = rows.shape[1]
    paired = rows.reshape(-1, 2, stride, columns).transpose(1, 2).reshape(len(blocks), -1, columns)
    return (blocks @ paired).reshape(-1, stride, 2, columns).transpose(1, 2).reshape(rows.shape)
