"""Weights that stay in memory in 16 or 8 bits, as their file has them, in a network that computes in another type.

Each is turned into that when it is used. In float32 this changes no result: every narrower number is a float32 number.
A text encoder and an autoencoder are used once for many steps of sampling, so that half the memory costs next to
nothing; and what is not copied stays mapped from its file, which all processes of the machine share.
"""

import torch
from torch import Tensor
from torch import dtype as DType
from torch.nn import Conv2d, Embedding, Linear, Module

from nodes.halved_convolutions import HalvedConv2d
from nodes.packed_layers import linear

NARROW = (torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)


class _Linear(Linear):
    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight.to(input.dtype), _bias(self, input.dtype))


class _Conv2d(Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        layout = (
            torch.channels_last if input.is_contiguous(memory_format=torch.channels_last) else torch.preserve_format
        )
        weight = self.weight.to(input.dtype, memory_format=layout)
        return self._conv_forward(input, weight, _bias(self, input.dtype))


class _Embedding(Embedding):
    computed: DType
    """What its vectors are computed with in."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).to(self.computed)


WIDENING: dict[type[Module], type[Module]] = {Linear: _Linear, Conv2d: _Conv2d, Embedding: _Embedding}


def is_narrow(tensor: Tensor) -> bool:
    """Whether it has 16 bits a number, or 8."""
    return tensor.dtype in NARROW


def compute_in(module: Module, dtype: DType) -> None:
    """Have a network turn its narrow weights into a type when it uses them; what it holds in other ways is turned now.

    Layers that have weights of that type are left alone.
    """
    module.__dict__["computed"] = dtype
    for each in module.modules():
        own = [*each.named_parameters(recurse=False), *each.named_buffers(recurse=False)]
        narrow = [(name, tensor) for name, tensor in own if is_narrow(tensor) and tensor.dtype != dtype]
        if not narrow or isinstance(each, HalvedConv2d):
            continue
        widening = WIDENING.get(type(each))
        if widening is not None:
            each.__class__ = widening
            if isinstance(each, _Embedding):
                each.computed = dtype
            continue
        for _, tensor in narrow:
            tensor.data = tensor.to(dtype)


def like(network: Module) -> Tensor:
    """An empty tensor of the type that a network computes in, whatever its weights are kept in, on its device."""
    present = next(each for each in network.parameters() if not each.is_meta)
    return present.new_empty(0, dtype=network.__dict__.get("computed", present.dtype))


def _bias(module: Linear | Conv2d, dtype: DType) -> Tensor | None:
    # Its type says otherwise, but a layer may have none.
    bias: Tensor | None = module.bias
    return None if bias is None else bias.to(dtype)
