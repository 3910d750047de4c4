"""How tensors are kept on disk: as safetensors does, with the strides they had. Imports torch when one is read."""

import sys
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any, cast

from graph.codec import Block, Codec, NoCodec

if TYPE_CHECKING:
    from torch import Tensor
    from torch import dtype as DType

DTYPES: Mapping[str, str] = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
"""safetensors' names of types, and torch's."""


class TensorCodec:
    """Dense tensors, read into memory of torch's own and laid out as they were.

    Both matter: kernels may add up in another order when a tensor lies otherwise, and a picture is to be the same to
    the last bit whether its steps were computed or read. A view with gaps is written without them. What was on a
    GPU is read to the CPU.
    """

    name = "tensor"

    def takes(self, value: object) -> bool:
        # While another thread is still importing torch, there is no such type yet, nor any tensor.
        kind = getattr(sys.modules.get("torch"), "Tensor", None)
        return kind is not None and isinstance(value, kind)

    def write(self, value: "Tensor") -> tuple[Block, Mapping[str, Any]]:
        import torch

        names = {getattr(torch, name): code for code, name in DTYPES.items()}
        if type(value) is not torch.Tensor or value.layout is not torch.strided or value.dtype not in names:
            raise NoCodec(type(value), f"{value.dtype} ({value.layout}) is not among the types that are written")
        try:
            tensor = value.detach().cpu().resolve_neg()
            laid = tensor.permute(sorted(range(tensor.ndim), key=tensor.stride, reverse=True))
            dense = laid if laid.is_contiguous() else tensor.contiguous()
            return Block(names[value.dtype], tuple(dense.shape), _bytes_of(dense)), _layout(tensor, dense is laid)
        except RuntimeError as error:
            raise NoCodec(type(value), str(error)) from error

    def allocate(self, dtype: str, shape: tuple[int, ...], nbytes: int) -> tuple["Tensor", memoryview]:
        import torch

        kind = cast("DType", getattr(torch, DTYPES[dtype]))
        if min(shape, default=0) < 0 or prod(shape) * kind.itemsize != nbytes:
            raise ValueError(f"{nbytes} bytes are not {dtype} of shape {shape}")
        empty = torch.empty(shape, dtype=kind)
        return empty, _bytes_of(empty)

    def finish(self, filled: "Tensor", details: Mapping[str, Any]) -> "Tensor":
        return filled.as_strided(details["shape"], details["stride"]) if details else filled


def _layout(tensor: "Tensor", dense: bool) -> Mapping[str, Any]:
    """Shape and strides, where they are not those that torch would choose."""
    import torch

    usual = torch.empty(tensor.shape, device="meta").stride()
    if not dense or tensor.stride() == usual:
        return {}
    return {"shape": list(tensor.shape), "stride": list(tensor.stride())}


def _bytes_of(dense: "Tensor") -> memoryview:
    import torch

    return memoryview(cast(Any, dense.reshape(-1).view(torch.uint8)).numpy())


CODEC = Codec([TensorCodec()])
"""Everything that the nodes' values are made of."""
