"""Convolutions of float32 that multiply in bf16: what comes in, the weights and what comes out are rounded to it.

The processor adds up in float32, and everything between convolutions stays in float32.
"""

import torch
from torch import Tensor
from torch.nn import Conv2d, Module

from nodes.packed_layers import (
    KERNEL,
    convolved,
    in_order,
    is_differentiated,
    is_packable,
    packable_types,
    without_numbers,
)

LEAST = 16
"""Channels: the few of a picture or a latent stay exact."""


class HalvedConv2d(Conv2d):
    """Its weights are as they were filed until they are needed: half an autoencoder may never be."""

    packed: Tensor | None = None

    def forward(self, input: Tensor) -> Tensor:
        # In this order, as another thread may be packing.
        weight, packed = self.weight, self.packed
        if is_differentiated(input):
            plain = weight if packed is None else packed.to_dense()
            return self._conv_forward(input, plain.to(input.dtype), self.bias)
        packed = self._pack(weight) if packed is None else packed
        return convolved(self, input.to(torch.bfloat16), packed).to(input.dtype)

    def _pack(self, weight: Tensor) -> Tensor:
        self.packed = packed = in_order(self, weight.to(torch.bfloat16))
        self.weight = without_numbers(weight, torch.bfloat16)
        return packed


def halve_convolutions(network: Module) -> None:
    """Have a network's convolutions multiply in bf16, on a CPU that has kernels for it. In place."""
    if torch.bfloat16 not in packable_types():
        return
    for layer in network.modules():
        if is_packable(layer, KERNEL, LEAST):
            layer.__class__ = HalvedConv2d
            if layer.bias is not None:
                layer.bias.data = layer.bias.data.float()
