"""Mixing encoded prompts of different length."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

Tokens = Float[Tensor, "batch tokens width"]


def mix(to: Tokens, source: Tokens, strength: float) -> Tokens:
    """to·strength + source·(1 − strength); `source` is cut or padded with zeros to the length of `to`."""
    length = to.shape[1]
    fitted = pad(source[:, :length], (0, 0, 0, max(length - source.shape[1], 0)))
    return to * strength + fitted * (1.0 - strength)


def append(to: Tokens, source: Tokens) -> Tokens:
    """The tokens of `source` behind those of `to`, for every sample."""
    return torch.cat([to, source.expand(len(to), -1, -1)], dim=1)
