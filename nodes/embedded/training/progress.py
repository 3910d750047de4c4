"""What the training stages have in common: one step of learning, schedules, averaged weights, progress and resuming."""

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

from .ranks import average_gradients

Weights = dict[str, Tensor]


def say(stage: str, text: str) -> None:
    """One line of progress, with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {stage}: {text}", flush=True)


def set_seed(seed: int) -> None:
    """The same first weights in every process."""
    cast(Any, torch).manual_seed(seed)


def rate(step: int, steps: int, warm: int = 60, hold: float = 0.0, floor: float = 0.03) -> float:
    """The share of the full learning rate: a short rise, a plateau, then half a cosine down to the floor."""
    if step < warm:
        return (step + 1) / warm
    fallen = max(0.0, step / steps - hold) / (1 - hold)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, fallen)))


class Learner:
    """A module that learns: its optimizer, a moving average of its weights, and the file that keeps them all."""

    def __init__(
        self,
        module: Module,
        learning_rate: float,
        path: Path | None = None,
        parameters: Iterable[Parameter] | None = None,
        decay: float = 0.0,
        weight_decay: float = 0.0,
        momentum: float = 0.99,
        together: bool = False,
    ) -> None:
        self.module, self.learning_rate, self.path = module, learning_rate, path
        self.parameters = list(parameters if parameters is not None else module.parameters())
        self.decay, self.together = decay, together
        self.average: Weights = {name: value.detach().clone() for name, value in module.state_dict().items()}
        self.optimizer: Any = AdamW(
            self.parameters, learning_rate, betas=(0.9, momentum), weight_decay=weight_decay, fused=True
        )

    def learn(self, loss: Tensor, step: int, share: float) -> None:
        """One step downhill at a share of the learning rate; `together` with the other processes."""
        self.optimizer.zero_grad()
        cast(Any, loss).backward()
        if self.together:
            average_gradients(self.parameters)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * share
        self.optimizer.step()
        if self.decay:
            self._follow(step)

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        """Move the average towards the weights, faster in the first steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in self.module.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)

    def save(self, step: int) -> None:
        assert self.path
        part = self.path.with_suffix(".part")
        state = {
            "step": step,
            "module": self.module.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        torch.save(state, part)
        os.replace(part, self.path)

    def resume(self) -> int:
        """Go on where the file stands; the next step, 0 if there is no file."""
        if self.path is None or not self.path.exists():
            return 0
        state = read(self.path)
        self.module.load_state_dict(state["module"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])


def read(path: Path) -> dict[str, Any]:
    """What a stage has written with torch."""
    return cast(dict[str, Any], torch.load(path, weights_only=True))


class Meter:
    """Prints the mean loss and the pace of a stage every hundred steps."""

    def __init__(self, stage: str, first: int, steps: int) -> None:
        self.stage, self.first, self.steps = stage, first, steps
        self.began, self.total = time.time(), 0.0

    def count(self, step: int, loss: Tensor, note: str = "") -> None:
        self.total += float(loss.detach())
        done = step + 1
        if done % 100:
            return
        pace = (done - self.first) / (time.time() - self.began)
        say(self.stage, f"step {done}/{self.steps} loss {self.total / 100:.4f} {pace:.2f} steps/s {note}".rstrip())
        self.total = 0.0
