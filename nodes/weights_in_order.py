"""Weights in an order of oneDNN's as plain bytes, and back: what torch has for networks that it compiles beforehand."""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch import dtype as DType

from nodes.packed_layers import packable_types

_OPS = cast(Any, torch).ops.mkldnn
_TYPES = {torch.float32: 6, torch.bfloat16: 15}
"""As torch numbers them."""
_CPU = 0
_ORDERED = 3
"""The layout of tensors whose order only oneDNN knows, as torch numbers it."""


def numbers_of(weight: Tensor) -> Tensor:
    """The bytes of a weight that is in order, uint8. They are the weight's own: valid for as long as it is there."""
    nbytes = int(_OPS._nbytes(weight))
    address = int(_OPS.data_ptr(weight))
    return torch.frombuffer((ctypes.c_char * nbytes).from_address(address), dtype=torch.uint8)


def order_of(weight: Tensor) -> Tensor:
    """In which order it is, as oneDNN writes it down, uint8. Another version or processor may not read it."""
    return _OPS._get_mkldnn_serialized_md(weight)


def ordered(numbers: Tensor, order: Tensor, shape: tuple[int, ...], dtype: DType) -> Tensor:
    """The weight of which these are the bytes, without a copy: it is valid for as long as `numbers` is there.

    Raises ValueError if there are not as many bytes as that takes.
    """
    sizes = (ctypes.c_int64 * len(shape))(*shape)
    made = ctypes.c_void_p()
    written = bytes(order.numpy())
    failed = _library().aoti_torch_create_tensor_from_blob_v2(
        ctypes.c_void_p(numbers.data_ptr()),
        ctypes.c_int64(len(shape)),
        sizes,
        sizes,  # strides, of which there are none
        ctypes.c_int64(0),
        ctypes.c_int32(_TYPES[dtype]),
        ctypes.c_int32(_CPU),
        ctypes.c_int32(0),
        ctypes.byref(made),
        ctypes.c_int32(_ORDERED),
        written,
        ctypes.c_int64(len(written)),
    )
    if failed:
        raise ValueError("torch makes no weight of these bytes")
    weight = cast(Tensor, cast(Any, torch)._C._aoti.alloc_tensor_by_stealing_from_void_ptr(_capsule(made)))
    if int(_OPS._nbytes(weight)) != numbers.numel():
        raise ValueError(f"{numbers.numel()} bytes are not a weight of {int(_OPS._nbytes(weight))}")
    return weight


@cache
def is_known() -> bool:
    """Whether torch still has what this takes, and a weight comes back as it was."""
    try:
        for dtype in packable_types():
            weight = torch.arange(64 * 96, dtype=torch.float32).reshape(64, 96).to(dtype)
            packed = cast(Tensor, _OPS._reorder_linear_weight(weight))
            numbers = numbers_of(packed).clone()
            if not torch.equal(ordered(numbers, order_of(packed), (64, 96), dtype).to_dense(), weight):
                return False
    except (AttributeError, OSError, RuntimeError, TypeError, ValueError):
        return False
    return bool(packable_types())


def _capsule(address: ctypes.c_void_p) -> object:
    new = ctypes.pythonapi.PyCapsule_New
    new.restype = ctypes.py_object
    new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return new(address, None, None)


@cache
def _library() -> Any:
    folder = Path(torch.__file__).parent / "lib"
    return ctypes.CDLL(str(next(each for each in folder.iterdir() if "torch_cpu." in each.name and "lib" in each.name)))
