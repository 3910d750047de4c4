"""Convolutions whose weights lie as the CPU's kernels want them.

torch puts the weights of a convolution in order anew whenever it is called. Of a U-Net's deep layers, where weights are
large and pictures small, that takes longer than the convolution: 35 against 6 ms for 1280 channels at 4 × 4 in float32
(two cores). Here it is done once. The kernels are the same.
"""

from typing import Any, TypeGuard, cast

import torch
from torch import Tensor
from torch.nn import Conv2d, Module, Parameter

KERNEL = (3, 3)
"""The order does not depend on the size of pictures for these; for smaller kernels it does."""
NEEDED = ("_reorder_convolution_weight", "_convolution_pointwise", "_is_mkldnn_bf16_supported")
LEAST_CHANNELS = 320
"""Below that the order costs next to nothing."""
LIKELY = (2, 16, 16)
"""Batch, height and width that kernels are chosen for."""


class PackedConv2d(Conv2d):
    """`weight` tells its shape and type alone."""

    packed: Tensor

    def forward(self, input: Tensor) -> Tensor:
        if torch.is_grad_enabled() and input.requires_grad:  # the kernels have no derivative, and would not say so
            return self._conv_forward(input, self.packed.to_dense(), self.bias)
        return _OPS._convolution_pointwise(
            input, self.packed, self.bias, self.padding, self.stride, self.dilation, 1, "none", [], ""
        )


_OPS = cast(Any, torch).ops.mkldnn


@torch.no_grad()
def pack_convolutions(module: Module) -> None:
    """Put the weights of a network's large convolutions in order, where torch has kernels for that. In place."""
    dtypes = _dtypes()
    batch, height, width = LIKELY
    for each in module.modules():
        if not _is_packable(each) or each.weight.dtype not in dtypes:
            continue
        conv = cast(PackedConv2d, each)
        size = [batch, conv.in_channels, height, width]
        conv.packed = _OPS._reorder_convolution_weight(
            conv.weight, conv.padding, conv.stride, conv.dilation, conv.groups, size
        )
        conv.weight = Parameter(conv.weight.to("meta"), requires_grad=False)
        conv.__class__ = PackedConv2d


def _dtypes() -> tuple[torch.dtype, ...]:
    """The types of numbers that torch has such kernels for here; none, should their private names change."""
    if not cast(Any, torch).backends.mkldnn.is_available() or not all(hasattr(_OPS, name) for name in NEEDED):
        return ()
    return (torch.float32, torch.bfloat16) if _OPS._is_mkldnn_bf16_supported() else (torch.float32,)


def _is_packable(module: Module) -> TypeGuard[Conv2d]:
    return (
        type(module) is Conv2d
        and module.kernel_size == KERNEL
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and min(module.in_channels, module.out_channels) >= LEAST_CHANNELS
        and module.weight.device.type == "cpu"
    )
