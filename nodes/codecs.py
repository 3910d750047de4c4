"""How tensors are kept on disk: as safetensors does, with the strides they had. Imports torch when one is read."""

import ctypes
import sys
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from graph.codec import ALIGNMENT, Block, Codec, NoCodec

if TYPE_CHECKING:
    from torch import Tensor

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
    """Dense tensors, read into memory that is aligned as torch's own, and laid out as they were.

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

    def read(self, block: Block, details: Mapping[str, Any]) -> "Tensor":
        numpy, from_numpy, dtypes = _arrays()
        dtype, torch_dtype = dtypes[block.dtype]
        if "stride" in details:
            strides = [step * dtype.itemsize for step in details["stride"]]
            array = numpy.ndarray(details["shape"], dtype, block.data, 0, strides)
        else:
            array = numpy.ndarray(block.shape, dtype, block.data)
        if array.nbytes != block.data.nbytes:
            raise ValueError(f"{block.data.nbytes} bytes are not {block.dtype} of shape {block.shape}")
        tensor = from_numpy(array)
        return tensor if torch_dtype is None else tensor.view(torch_dtype)


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


@cache
def _arrays() -> tuple[Any, Any, Mapping[str, tuple[Any, Any]]]:
    """numpy, the function that makes a tensor of an array, and the types of both; torch's only where numpy has none."""
    import numpy
    import torch

    dtypes = {
        code: (numpy.dtype("int16"), torch.bfloat16) if name == "bfloat16" else (numpy.dtype(name), None)
        for code, name in DTYPES.items()
    }
    return numpy, cast(Any, torch).from_numpy, dtypes


@cache
def _empty() -> Any:
    from numpy import empty

    return empty


SMALL_BYTES = 1 << 14
_address, _first = ctypes.addressof, ctypes.c_char.from_buffer


def aligned(nbytes: int) -> memoryview:
    """Memory of undefined content, at a multiple of `ALIGNMENT`."""
    # numpy does not clear it, and asks for huge pages; but what is small does not wait for numpy to be imported.
    memory = _empty()(nbytes + ALIGNMENT, "u1") if nbytes > SMALL_BYTES else bytearray(nbytes + ALIGNMENT)
    skipped = -_address(_first(memory)) % ALIGNMENT
    return memoryview(memory)[skipped : skipped + nbytes]


CODEC = Codec([TensorCodec()], aligned)
"""Everything that the nodes' values are made of."""
