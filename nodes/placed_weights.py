"""Weights taken from their places in a file's tensors."""

import torch
from torch import Tensor

from nodes.weight_places import Place


def taken(tensor: Tensor, place: Place) -> Tensor:
    """What a place says of a tensor: shares of its rows, in an order of their own, and transposed if it is turned."""
    parts = [] if place.whole else [tensor.narrow(0, *span) for span in place.spans(len(tensor))]
    part = tensor if place.whole else parts[0] if len(parts) == 1 else torch.cat(parts)
    # Contiguous, so that kernels add up in the same order as from a file that has it so.
    return part.t().contiguous() if place.turned else part
