"""A network that runs through torch.compile, and as it is where that fails."""

import logging
import time
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import Module

log = logging.getLogger("latentloom.models")


class CompiledNetwork(Module):
    """A network, compiled when it is first called, and again for other shapes. The log tells how long that took.

    If it cannot be compiled, one warning says why, and it runs as it is from then on.
    """

    def __init__(self, network: Module, backend: str) -> None:
        super().__init__()
        self.network = network
        self.config: Any = cast(Any, network).config
        self.backend = backend
        # In a list, so that torch does not take it for a part with weights of its own.
        self._compiled: list[Any] = []
        self._failed = False
        self._known: set[tuple[int, ...]] = set()

    def forward(self, *args: Any, **named: Any) -> Any:
        if self._failed:
            return self.network(*args, **named)
        shape = tuple(cast(Tensor, args[0]).shape)
        start = time.perf_counter()
        try:
            if not self._compiled:
                self._compiled.append(cast(Any, torch).compile(self.network, backend=self.backend))
            found = self._compiled[0](*args, **named)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # torch.compile fails in many ways
            found = self.network(*args, **named)  # which raises what is wrong with the call itself
            self._failed = True
            self._compiled.clear()
            reason = str(getattr(error, "inner_exception", error)).strip().partition("\n")[0] or type(error).__name__
            log.warning("the network cannot be compiled with %s and runs as it is: %s", self.backend, reason)
            return found
        if shape not in self._known:
            self._known.add(shape)
            seconds, told = time.perf_counter() - start, " x ".join(map(str, shape))
            log.info("first step at %s with %s, compilation included: %.2f s", told, self.backend, seconds)
        return found
