"""A network's weights in a prepared file: into it, and from it into the layers."""

import logging
import sys
import time
from collections.abc import Callable, Collection, Iterable
from math import prod
from typing import Any, cast

import torch
from torch import Tensor
from torch import dtype as DType
from torch.nn import Module

from graph.identity import digest, encode
from nodes import packed_layers
from nodes.packed_layers import Packing, packing
from nodes.prepared_networks import Draft, PreparedNetwork, PreparedNetworks
from nodes.weight_places import Shapes
from nodes.weights_in_order import is_known, numbers_of, order_of, ordered

log = logging.getLogger("latentloom.models")

ORDER = "@order"
"""At the end of the name of what oneDNN says of a weight's order."""
CHANNELS_LAST = "@channels_last"
"""At the end of the name of a weight of a convolution whose channels are last in memory, and in the file's shape."""
VERSION = 1


def can_be_prepared() -> bool:
    """Whether files can hold what the layers of this machine have, and get their names while they are mapped."""
    return is_known() and sys.byteorder == "little" and sys.platform != "win32"


def prepared_key(identity: str, *form: object) -> bytes:
    """What names a network in a form, for this machine and this version of torch."""
    kernels: Any = cast(Any, torch).cpu.get_capabilities()
    parts = [VERSION, torch.__version__, dict(kernels), packed_layers.LEAST, packed_layers.LIKELY, identity, *form]
    return digest(b"prepared", encode(parts))


def names_in_file(names: Iterable[str]) -> list[str]:
    """The names that a network's weights may have in its file."""
    return [name + end for name in names for end in ("", ORDER, CHANNELS_LAST)]


class PreparedWeights:
    """Those of a network that are being written. What is small is written at the end, so that all else is aligned."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._small: dict[str, Tensor] = {}

    def add_ordered(self, name: str, weight: Tensor) -> None:
        """A weight that is in order. Raises OSError."""
        self._draft.add(name, numbers_of(weight))
        self._small[name + ORDER] = order_of(weight)

    def add(self, name: str, weight: Tensor) -> None:
        is_last = weight.ndim == 4 and not weight.is_contiguous()
        self._small[name + CHANNELS_LAST if is_last else name] = weight.permute(0, 2, 3, 1) if is_last else weight

    def finish(self) -> PreparedNetwork:
        """Raises OSError."""
        for name, weight in self._small.items():
            self._draft.add(name, weight)
        return self._draft.finish()


def take_prepared(module: Module, found: PreparedNetwork, wanted: Shapes, dtype: DType) -> dict[str, Tensor]:
    """Give layers what they take of these in an order of their own; returns the other weights.

    Raises ValueError for a file that does not hold this network, and leaves the layers as they were.
    """
    weights: dict[str, Tensor] = {}
    taken: list[tuple[Module, Packing, Tensor, Tensor]] = []
    for name, shape in wanted.items():
        if name + CHANNELS_LAST in found.names:
            weights[name] = _plain(found.tensor(name + CHANNELS_LAST).permute(0, 3, 1, 2), name, shape, dtype)
        elif name not in found.names:
            raise ValueError(f"there is no {name}")
        elif name + ORDER not in found.names:
            weights[name] = _plain(found.tensor(name), name, shape, dtype)
        else:
            layer = module.get_submodule(name.rpartition(".")[0])
            order = packing(layer, dtype)
            if order is None:
                raise ValueError(f"{name} has no order of its own")
            numbers = found.tensor(name)
            weight = ordered(numbers, found.tensor(name + ORDER), order.shape, dtype)
            taken.append((layer, order, weight, numbers))
    for layer, order, weight, numbers in taken:
        order.give(weight)
        layer.mapped = numbers  # with which what the weight lies in would go
    return weights


def _plain(weight: Tensor, name: str, shape: tuple[int, ...], dtype: DType) -> Tensor:
    if (tuple(weight.shape), weight.dtype) != (shape, dtype):
        raise ValueError(f"{name} is {list(weight.shape)} of {weight.dtype} instead of {list(shape)} of {dtype}")
    return weight


def from_prepared(
    prepared: PreparedNetworks,
    key: bytes,
    module: Module,
    wanted: Shapes,
    dtype: DType,
    write: Callable[[PreparedWeights], None],
    touched: Collection[str] = (),
) -> dict[str, Tensor] | None:
    """What `take_prepared` does with the network of a key, prepared by `write` if it was not before.

    None where it cannot be prepared: for want of room, because another process is at it, or because the disk fails.

    Args:
        wanted: the shapes of all of its weights.
        touched: the names of those that are not to be taken.
    """
    found = prepared.find(key) or _written(prepared, key, wanted, dtype, write)
    if found is None:
        return None
    try:
        rest = {name: shape for name, shape in wanted.items() if name not in touched}
        return take_prepared(module, found, rest, dtype)
    except ValueError as error:
        prepared.reject(key, error)
        return None


def _written(
    prepared: PreparedNetworks, key: bytes, wanted: Shapes, dtype: DType, write: Callable[[PreparedWeights], None]
) -> PreparedNetwork | None:
    nbytes = sum(map(prod, wanted.values())) * dtype.itemsize
    began = time.perf_counter()
    try:
        draft = prepared.begin(key, names_in_file(wanted), nbytes)
        if draft is None:
            return None
        try:
            weights = PreparedWeights(draft)
            write(weights)
            found = weights.finish()
        except BaseException:
            draft.discard()
            raise
    except OSError as error:
        log.warning("%s: no network can be kept there (%s)", prepared.folder, error)
        return None
    log.info("%s: prepared in %.2f s (%.1f MB)", prepared.path(key), time.perf_counter() - began, nbytes / 1e6)
    return found
