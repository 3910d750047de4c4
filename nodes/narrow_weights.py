"""Weights that stay in memory in 16 bits, as their file has them, in a network that computes in float32.

Each is widened when it is used, which changes no result: every 16-bit number is a float32 number. A text encoder and
an autoencoder are used once for many steps of sampling, so that half the memory costs next to nothing; and what is not
copied stays mapped from its file, which all processes of the machine share.
"""

import torch
from torch import Tensor
from torch.nn import Conv2d, Embedding, Linear, Module

from nodes.halved_convolutions import HalvedConv2d
from nodes.packed_layers import linear

NARROW = (torch.float16, torch.bfloat16)


class _Linear(Linear):
    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight.float(), _bias(self))


class _Conv2d(Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        layout = (
            torch.channels_last if input.is_contiguous(memory_format=torch.channels_last) else torch.preserve_format
        )
        weight = self.weight.to(torch.float32, memory_format=layout)
        return self._conv_forward(input, weight, _bias(self))


class _Embedding(Embedding):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).float()


WIDENING: dict[type[Module], type[Module]] = {Linear: _Linear, Conv2d: _Conv2d, Embedding: _Embedding}


def is_narrow(tensor: Tensor) -> bool:
    """Whether it has 16 bits a number."""
    return tensor.dtype in NARROW


def compute_in_float32(module: Module) -> None:
    """Have a network widen its 16-bit weights when it uses them; what it holds in other ways is widened now."""
    for each in module.modules():
        own = [*each.named_parameters(recurse=False), *each.named_buffers(recurse=False)]
        narrow = [(name, tensor) for name, tensor in own if is_narrow(tensor)]
        if not narrow or isinstance(each, HalvedConv2d):
            continue
        widening = WIDENING.get(type(each))
        if widening is not None:
            each.__class__ = widening
            continue
        for _, tensor in narrow:
            tensor.data = tensor.float()


def _bias(module: Linear | Conv2d) -> Tensor | None:
    # Its type says otherwise, but a layer may have none.
    bias: Tensor | None = module.bias
    return None if bias is None else bias.float()
