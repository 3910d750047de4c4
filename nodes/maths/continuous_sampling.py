"""The noise levels of networks that were trained on every level between two."""

import math
from dataclasses import dataclass
from typing import Literal

import torch

from nodes.maths.model_sampling import BEYOND_SIGMA_MAX, ModelSampling, NoiseLevels, Prediction

TimeScale = Literal["log", "arctan", "share"]
ENTRIES = 1000
"""Of the grid that schedules choose from."""


@dataclass(frozen=True)
class ContinuousSampling(ModelSampling):
    """The noise levels of a network trained on all of them between two, Karras et al. (2022).

    `time` is how it is told of one: by a quarter of its logarithm, by the angle 2/π·arctan, or by sigma / (sigma + 1).
    """

    lowest: float = 0.002
    highest: float = 120.0
    prediction: Prediction = "edm"
    sigma_data: float = 1.0
    time: TimeScale = "log"

    def __post_init__(self) -> None:
        if not 0.0 < self.lowest < self.highest:
            raise ValueError(
                f"noise levels from {self.lowest} to {self.highest}: expected both above 0, and the first smaller"
            )

    @property
    def sigmas(self) -> NoiseLevels:
        return torch.linspace(math.log(self.lowest), math.log(self.highest), ENTRIES).exp()

    def timestep(self, sigma: float) -> float:
        match self.time:
            case "log":
                return 0.25 * math.log(sigma)
            case "arctan":
                return math.atan(sigma) * 2.0 / math.pi
            case "share":
                return sigma / (sigma + 1.0)

    def sigma(self, t: float) -> float:
        match self.time:
            case "log":
                return math.exp(4.0 * t)
            case "arctan":
                return math.tan(t * math.pi / 2.0)
            case "share":
                return t / (1.0 - t) if t < 1.0 else BEYOND_SIGMA_MAX

    def percent_to_sigma(self, percent: float) -> float:
        if percent <= 0.0:
            return BEYOND_SIGMA_MAX
        if percent >= 1.0:
            return 0.0
        low, high = math.log(self.lowest), math.log(self.highest)
        return math.exp((high - low) * (1.0 - percent) + low)
