"""The noise levels of rectified flows."""

from dataclasses import dataclass

import torch

from nodes.maths.model_sampling import ModelSampling, NoiseLevels, Prediction


@dataclass(frozen=True)
class FlowSampling(ModelSampling):
    """The noise levels of a rectified flow: shares of noise from 0 to 1, shifted towards 1, Esser et al. (2024).

    Args:
        shift: s in sigma = s·u / (1 + (s - 1)·u), where u is the share of the way; Flux's mu is its logarithm.
        multiplier: the network is told sigma times this.
        entries: of the table that schedules choose from.
    """

    shift: float = 1.0
    multiplier: float = 1000.0
    entries: int = 1000
    prediction: Prediction = "flow"
    sigma_data: float = 1.0

    def __post_init__(self) -> None:
        if not self.shift > 0.0 or not self.multiplier > 0.0 or self.entries < 2:
            raise ValueError(
                f"a flow with shift {self.shift}, multiplier {self.multiplier} and {self.entries} levels: expected "
                "the first two above 0, and at least 2 levels"
            )

    @property
    def sigmas(self) -> NoiseLevels:
        u = torch.arange(1, self.entries + 1, dtype=torch.float32) / self.entries
        return self.shift * u / (1.0 + (self.shift - 1.0) * u)

    def timestep(self, sigma: float) -> float:
        return sigma * self.multiplier

    def sigma(self, t: float) -> float:
        u = t / self.multiplier
        return self.shift * u / (1.0 + (self.shift - 1.0) * u)

    def percent_to_sigma(self, percent: float) -> float:
        if percent <= 0.0:
            return 1.0
        if percent >= 1.0:
            return 0.0
        return self.sigma((1.0 - percent) * self.multiplier)
