"""Safetensors files that are open for reading, tensor by tensor."""

from pathlib import Path
from typing import Any, cast

from torch import Tensor

from nodes.model_errors import ModelError
from nodes.safetensors_header import AGAIN


class OpenWeights:
    """Files of weights, each opened when it is first read from."""

    def __init__(self) -> None:
        self._files: dict[Path, Any] = {}

    def tensor(self, path: Path, name: str) -> Tensor:
        """A tensor, mapped from its file. Raises ModelError."""
        from safetensors import SafetensorError, safe_open

        try:
            if path not in self._files:
                self._files[path] = cast(Any, safe_open)(path, framework="pt", device="cpu").__enter__()
            return self._files[path].get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise ModelError(path, f"the weights cannot be read ({error})", AGAIN) from error
