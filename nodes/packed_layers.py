"""Layers as a CPU computes them fastest: by oneDNN's kernels, with weights in the order that these want.

torch puts the weights of a convolution in order anew whenever it is called. Of a U-Net's deep layers, where weights are
large and pictures small, that takes longer than the convolution: 35 against 6 ms for 1280 channels at 4 × 4 in float32
(two cores). Here it is done once. And it multiplies matrices of float32 by MKL, which took 2.3 times as long as oneDNN
for 512 × 1280 by 1280 × 1280 on a processor of AMD.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple, TypeGuard, cast

import torch
from torch import Tensor
from torch import dtype as DType
from torch.library import custom_op
from torch.nn import Conv2d, Linear, Module, Parameter
from torch.nn import functional as F

KERNEL = (3, 3)
"""The order does not depend on the size of pictures for these."""
POINT = (1, 1)
"""For these it does, but not as that of a matrix."""
NEEDED = (
    "_convolution_pointwise",
    "_linear_pointwise",
    "_reorder_convolution_weight",
    "_reorder_linear_weight",
    "_is_mkldnn_bf16_supported",
)
LEAST = 320
"""The channels below which the order costs next to nothing."""
LIKELY = (2, 16, 16)
"""Batch, height and width that kernels are chosen for."""

_OPS = cast(Any, torch).ops.mkldnn
_PLAIN: tuple[Any, ...] = ("none", [], "")
"""Nothing is computed together with the layer."""


class PackedConv2d(Conv2d):
    """`weight` tells its shape and type alone."""

    packed: Tensor

    def forward(self, input: Tensor) -> Tensor:
        if is_differentiated(input):
            return self._conv_forward(input, self.packed.to_dense(), self.bias)
        return convolved(self, input, self.packed)


class PackedPointwiseConv2d(Conv2d):
    """One of a kernel of one pixel, which is a product of matrices. `weight` tells its shape and type alone."""

    packed: Tensor

    def forward(self, input: Tensor) -> Tensor:
        pixels = input.permute(0, 2, 3, 1)  # in memory, too, where it is channels-last
        return _multiplied(pixels, self.packed, self.bias, self.out_channels).permute(0, 3, 1, 2)


class PackedLinear(Linear):
    """`weight` tells its shape and type alone."""

    packed: Tensor

    def forward(self, input: Tensor) -> Tensor:
        return _multiplied(input, self.packed, self.bias, self.out_features)


class DirectLinear(Linear):
    """One of float32 with its weights as they are."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def convolved(layer: Conv2d, input: Tensor, packed: Tensor) -> Tensor:
    """What a convolution makes of an input with weights that are in order, both in one type. Has no derivative."""
    return _OPS._convolution_pointwise(
        input, packed, layer.bias, layer.padding, layer.stride, layer.dilation, 1, *_PLAIN
    )


def _multiplied(input: Tensor, packed: Tensor, bias: Tensor | None, width: int) -> Tensor:
    """What a linear layer makes of an input with weights that are in order."""
    if is_differentiated(input):
        return F.linear(input, packed.to_dense(), bias)
    if torch.compiler.is_compiling():
        return _packed_linear(input, packed, bias, width)
    return _OPS._linear_pointwise(input, packed, bias, *_PLAIN)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`torch.nn.functional.linear`, by oneDNN if it is in float32 on a CPU."""
    on_cpu = input.device.type == "cpu" and input.dtype == weight.dtype == torch.float32
    if not on_cpu or is_differentiated(input, weight) or torch.compiler.is_compiling() or not packable_types():
        return F.linear(input, weight, bias)
    return _OPS._linear_pointwise(input, weight, bias, *_PLAIN)


@custom_op("latentloom::packed_linear", mutates_args=())
def _packed_linear(input: Tensor, packed: Tensor, bias: Tensor | None, width: int) -> Tensor:
    """A packed linear layer as torch.compile takes it: as a whole. It would have weights in order be constants."""
    return _OPS._linear_pointwise(input, packed, bias, *_PLAIN)


@cast(Any, _packed_linear).register_fake
def _(input: Tensor, packed: Tensor, bias: Tensor | None, width: int) -> Tensor:
    return input.new_empty((*input.shape[:-1], width))


def is_differentiated(*tensors: Tensor) -> bool:
    """Whether a derivative may be asked for: oneDNN's kernels have none, and would not say so."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


class Packing(NamedTuple):
    """How a layer takes its weights in an order of its own."""

    order: Callable[[Tensor], Tensor]
    """Puts weights of `dtype` in order."""
    give: Callable[[Tensor], None]
    """Gives the layer weights that are in order."""
    shape: tuple[int, ...]
    """Of weights that are in order."""
    dtype: DType

    def take(self, weight: Tensor) -> None:
        self.give(self.order(weight))


def packing(layer: Module, dtype: DType) -> Packing | None:
    """What a layer on a CPU that computes in `dtype` takes its weights by; None if it takes them as they are."""
    if dtype not in packable_types():
        return None
    if is_packable(layer, KERNEL, LEAST):
        return Packing(partial(in_order, layer), partial(_give, layer, PackedConv2d), tuple(layer.weight.shape), dtype)
    if is_packable(layer, POINT, LEAST) and layer.stride == POINT and layer.padding == (0, 0):
        shape = layer.out_channels, layer.in_channels
        return Packing(_matrix_in_order, partial(_give, layer, PackedPointwiseConv2d), shape, dtype)
    if type(layer) is Linear and min(layer.in_features, layer.out_features) >= LEAST:
        shape = layer.out_features, layer.in_features
        return Packing(_matrix_in_order, partial(_give, layer, PackedLinear), shape, dtype)
    return None


def pack(network: Module, dtype: DType) -> None:
    """Put the weights in order that a network on a CPU has already. In place."""
    for layer in network.modules():
        found = packing(layer, dtype)
        if found:
            found.take(cast(Tensor, layer.weight).contiguous())
    compute_directly(network)


def compute_directly(module: Module) -> None:
    """Have what linear layers of float32 a network has left, on a CPU, compute by oneDNN. In place."""
    if not packable_types():
        return
    for each in module.modules():
        if type(each) is Linear and each.weight.dtype == torch.float32 and each.weight.device.type == "cpu":
            each.__class__ = DirectLinear


def packable_types() -> tuple[DType, ...]:
    """The types of numbers that torch has such kernels for here; none, should their private names change."""
    return _types(NEEDED)


@cache
def _types(needed: tuple[str, ...]) -> tuple[DType, ...]:
    if not cast(Any, torch).backends.mkldnn.is_available() or not all(hasattr(_OPS, name) for name in needed):
        return ()
    return (torch.float32, torch.bfloat16) if _OPS._is_mkldnn_bf16_supported() else (torch.float32,)


@torch.no_grad()
def in_order(layer: Conv2d, weight: Tensor) -> Tensor:
    """The weights of a convolution, in order."""
    batch, height, width = LIKELY
    size = [batch, layer.in_channels, height, width]
    return _OPS._reorder_convolution_weight(weight, layer.padding, layer.stride, layer.dilation, 1, size)


@torch.no_grad()
def _matrix_in_order(weight: Tensor) -> Tensor:
    return _OPS._reorder_linear_weight(weight.flatten(1))


def _give(layer: Module, kind: type[PackedConv2d | PackedPointwiseConv2d | PackedLinear], packed: Tensor) -> None:
    weight = cast(Tensor, layer.weight)
    layer.__class__ = kind
    layer.packed = packed
    layer.weight = without_numbers(weight, packed.dtype)


class Scratch:
    """Memory for one weight after the other: to touch new memory takes longer than to put a weight in order."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)

    def holding(self, weight: Tensor, dtype: DType) -> Tensor:
        """A weight in another type, until the next call; of a convolution channels-last, which is sorted soonest."""
        needed = weight.numel() * dtype.itemsize
        if len(self._memory) < needed:
            self._memory = torch.empty(needed, dtype=torch.uint8)
        room = self._memory[:needed].view(dtype)
        if weight.ndim != 4:
            return room.view(weight.shape).copy_(weight)
        out, into, height, width = weight.shape
        return room.view(out, height, width, into).permute(0, 3, 1, 2).copy_(weight)


def without_numbers(weight: Tensor, dtype: DType) -> Parameter:
    """What tells a weight's shape and type, and has no numbers."""
    return Parameter(weight.to("meta", dtype), requires_grad=False)


def is_packable(layer: Module, kernel: tuple[int, int], least: int) -> TypeGuard[Conv2d]:
    """Whether it is a plain convolution with such a kernel, and so many channels at least on both sides."""
    return (
        type(layer) is Conv2d
        and layer.kernel_size == kernel
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and min(layer.in_channels, layer.out_channels) >= least
    )
