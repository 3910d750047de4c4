"""The best approximation of a matrix by one of low rank."""

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor


def low_rank(
    change: Float[Tensor, "rows columns"], rank: int
) -> tuple[Float[Tensor, "rows rank"], Float[Tensor, "rank columns"]]:
    """Two matrices of about equal size whose product is as near to the given one as any of that rank (Eckart, Young).

    The product is the change, projected on the directions in which it is the largest; at most its shorter side of them.
    """
    wide = change.shape[0] <= change.shape[1]
    matrix = (change if wide else change.mT).double()
    # The squares of a matrix have its directions, and are as small as its shorter side.
    vectors = cast(Tensor, cast(Any, torch).linalg.eigh(matrix @ matrix.mT)[1])
    up = vectors[:, -rank:].flip(1)
    down = up.mT @ matrix
    size = (down.square().sum() / up.square().sum()) ** 0.25 or 1.0
    up, down = (up * size).float(), (down / size).float()
    return (up, down) if wide else (down.mT.contiguous(), up.mT.contiguous())
