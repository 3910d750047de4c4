"""What long training steps have in common: schedules, averaged weights, progress lines, and resuming."""

import math
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.optim import AdamW


def say(stage: str, text: str) -> None:
    """One line of progress, with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {stage}: {text}", flush=True)


def rate(step: int, steps: int, warm: int = 60, hold: float = 0.0, floor: float = 0.03) -> float:
    """The share of the full learning rate: a short rise, a plateau, then half a cosine down to the floor."""
    if step < warm:
        return (step + 1) / warm
    fallen = max(0.0, step / steps - hold) / (1 - hold)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, fallen)))


def set_rate(optimizer: AdamW, value: float) -> None:
    for group in cast(list[dict[str, Any]], optimizer.param_groups):
        group["lr"] = value


def clip(parameters: Iterable[Parameter], limit: float = 1.0) -> None:
    torch.nn.utils.clip_grad_norm_(parameters, limit)


class Average:
    """An exponential moving average of a module's weights."""

    def __init__(self, module: Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: Module, step: int) -> None:
        """Follow the module, faster in the first steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            self.weights[name].lerp_(value, 1 - decay)


class Checkpoint:
    """Where a stage stands: weights, averages and optimizer, written to one file now and then."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, step: int, module: Module, average: Average, optimizer: AdamW) -> None:
        part = self.path.with_suffix(".part")
        state = {
            "step": step,
            "module": module.state_dict(),
            "average": average.weights,
            "optimizer": cast(Any, optimizer).state_dict(),
        }
        torch.save(state, part)
        os.replace(part, self.path)

    def load(self, module: Module, average: Average, optimizer: AdamW) -> int:
        """Go on where the file stands; the next step, 0 if there is no file."""
        if not self.path.exists():
            return 0
        state = cast(dict[str, Any], torch.load(self.path, weights_only=True))
        module.load_state_dict(state["module"])
        average.weights = cast(dict[str, Tensor], state["average"])
        cast(Any, optimizer).load_state_dict(state["optimizer"])
        return int(state["step"])
