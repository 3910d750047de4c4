"""Files of weights that are open for reading, tensor by tensor."""

from pathlib import Path
from typing import Any, cast

from torch import Tensor

from nodes.model_errors import ModelError
from nodes.pickles import is_pickle
from nodes.safetensors_header import AGAIN
from nodes.scaled_weights import SCALES, weight_of
from nodes.weight_files import read_header

MAPPED_BYTES = 64 * 1024**2
"""So much is read through one mapping of a file. What was read counts as this process's memory until the mapping goes,
and that goes with the last tensor that was taken from it."""


class OpenWeights:
    """Files of weights, each opened when it is first read from."""

    def __init__(self) -> None:
        self._files: dict[Path, Any] = {}
        self._taken: dict[Path, int] = {}
        self._pickles: dict[Path, dict[str, Tensor]] = {}
        self._scales: dict[Path, dict[str, str]] = {}

    def tensor(self, path: Path, name: str) -> Tensor:
        """A tensor, mapped from its file, but for numbers of 8 bits with a scale of their own, which are multiplied.

        Raises ModelError.
        """
        if is_pickle(path):
            return self._pickled(path, name)
        from safetensors import SafetensorError, safe_open

        try:
            if path not in self._files:
                self._files[path] = cast(Any, safe_open)(path, framework="pt", device="cpu").__enter__()
            tensor = cast(Tensor, self._files[path].get_tensor(name))
            self._taken[path] = self._taken.get(path, 0) + tensor.nbytes
            if self._taken[path] > MAPPED_BYTES:
                del self._files[path], self._taken[path]
            scale = self._scale_of(path, name) if tensor.dtype.itemsize == 1 and tensor.is_floating_point() else None
            return tensor if scale is None else tensor.float() * scale
        except (OSError, SafetensorError) as error:
            raise ModelError(path, f"the weights cannot be read ({error})", AGAIN) from error

    def _scale_of(self, path: Path, name: str) -> float | None:
        """What the numbers of a weight are multiplied by, where a file says so beside it. Raises ModelError."""
        if path not in self._scales:
            names = read_header(path)
            self._scales[path] = {weight_of(each): each for each in names if each.endswith(SCALES)}
        scale = self._scales[path].get(name)
        if scale is None:
            return None
        found = self.tensor(path, scale)
        if found.numel() != 1:
            reason = f"{scale} has the shape {list(found.shape)}: one number for all of a weight is supported"
            raise ModelError(path, reason, "Choose a file whose weights are not scaled by blocks.")
        return found.item()

    def _pickled(self, path: Path, name: str) -> Tensor:
        if path not in self._pickles:
            from nodes.pickled_weights import pickled_tensors

            self._pickles[path] = pickled_tensors(path)
        if name not in self._pickles[path]:
            raise ModelError(path, f"it holds no {name!r}", AGAIN)
        return self._pickles[path][name]
