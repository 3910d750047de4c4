"""How a diffusion network is asked and answered: its noise levels, its input's scale, its output's meaning."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Latents = Float[Tensor, "batch channels height width"]
NoiseLevels = Float[Tensor, " levels"]
BetaSchedule = Literal["scaled_linear", "linear"]
Prediction = Literal["epsilon", "v_prediction", "sample", "edm", "img_to_img", "lcm", "flow", "cosmos_rflow"]
DISCRETE: tuple[Prediction, ...] = ("epsilon", "v_prediction", "sample", "img_to_img", "lcm")

# The reference's stand-in for the zero that a zero-terminal-SNR table would divide by.
LAST_ALPHA_BAR = 4.8973451890853435e-08
BEYOND_SIGMA_MAX = 999999999.9
LCM_SIGMA_DATA = 0.5
LCM_TIME_SCALE = 10.0


@lru_cache(maxsize=16)
def sigma_table(
    beta_start: float, beta_end: float, schedule: BetaSchedule, steps: int, zero_terminal_snr: bool
) -> tuple[NoiseLevels, NoiseLevels]:
    """sqrt((1 - alpha_bar) / alpha_bar) of every timestep, ascending, and its logarithm; shared, so read only."""
    match schedule:
        case "scaled_linear":
            betas = torch.linspace(beta_start**0.5, beta_end**0.5, steps, dtype=torch.float64) ** 2
        case "linear":
            betas = torch.linspace(beta_start, beta_end, steps, dtype=torch.float64)
    alpha_bar = torch.cumprod(1.0 - betas, dim=0)
    if zero_terminal_snr:
        alpha_bar = without_signal_at_the_end(alpha_bar)
    sigmas = ((1.0 - alpha_bar) / alpha_bar) ** 0.5
    return sigmas.float(), sigmas.log().float()


def without_signal_at_the_end(alpha_bar: NoiseLevels) -> NoiseLevels:
    """Shift and stretch sqrt(alpha_bar): the last timestep becomes pure noise, the first stays, Lin et al. (2023)."""
    root = alpha_bar.sqrt()
    first, last = root[0], root[-1]
    rescaled = ((root - last) * (first / (first - last))) ** 2
    # Steeper betas than Stable Diffusion's may reach that already one timestep before.
    return torch.cat([rescaled[:-1], (rescaled[-2:-1] / 4).clamp(max=LAST_ALPHA_BAR)])


class ModelSampling(ABC):
    """The noise levels of a network, and the preconditioning around it.

    Latents are "variance exploding", x = latent + sigma·noise, but for rectified flows (`flow`), where
    x = (1 - sigma)·latent + sigma·noise. All methods are pure and keep the dtype of x.
    """

    prediction: Prediction
    sigma_data: float

    @property
    @abstractmethod
    def sigmas(self) -> NoiseLevels:
        """The noise levels it was trained on, or a fine grid over them, ascending, float32."""

    @abstractmethod
    def timestep(self, sigma: float) -> float:
        """What the network is told in place of a noise level."""

    @abstractmethod
    def sigma(self, t: float) -> float:
        """The noise level at a timestep."""

    @abstractmethod
    def percent_to_sigma(self, percent: float) -> float:
        """The noise level after this share of the sampling: 0 is at or above every sigma, 1 is none."""

    @property
    def flow(self) -> bool:
        """Whether it goes in a straight line from latent to noise: a rectified flow, Liu et al. (2022)."""
        return self.prediction == "flow"

    @property
    def sigma_min(self) -> float:
        return self.sigmas[0].item()

    @property
    def sigma_max(self) -> float:
        return self.sigmas[-1].item()

    def scale_input(self, x: Latents, sigma: float) -> Latents:
        """What the network is shown: x at unit variance, if the data have the standard deviation `sigma_data`."""
        match self.prediction:
            case "flow" | "img_to_img":
                return x
            case "cosmos_rflow":
                return x * (1.0 - sigma / (sigma + 1.0))
            case _:
                return x / (torch.tensor(sigma, dtype=x.dtype) ** 2 + self.sigma_data**2) ** 0.5

    def denoised(
        self,
        x: Latents,
        output: Latents,
        sigma: float,
    ) -> Latents:
        """The clean latent that the network's output means.

        Ho et al. (2020) for epsilon, Salimans and Ho (2022) for v, Karras et al. (2022) for edm, Luo et al. (2023) for
        lcm.
        """
        s, data = torch.tensor(sigma, dtype=x.dtype), self.sigma_data
        match self.prediction:
            case "epsilon" | "flow":
                return x - output * s
            case "v_prediction":
                return x * data**2 / (s**2 + data**2) - output * s * data / (s**2 + data**2) ** 0.5
            case "edm":
                return x * data**2 / (s**2 + data**2) + output * s * data / (s**2 + data**2) ** 0.5
            case "sample" | "img_to_img":
                return output
            case "cosmos_rflow":
                share = s / (s + 1.0)
                return x * (1.0 - share) - output * share
            case "lcm":
                t = self.timestep(sigma) * LCM_TIME_SCALE
                skip = LCM_SIGMA_DATA**2 / (t**2 + LCM_SIGMA_DATA**2)
                return (x - output * s) * (t / (t**2 + LCM_SIGMA_DATA**2) ** 0.5) + x * skip

    def noise_scaling(
        self,
        sigma: float,
        noise: Latents,
        latent: Latents,
        max_denoise: bool = False,
    ) -> Latents:
        """The latent noised to sigma; from pure noise (`max_denoise`) at the variance of training."""
        s = torch.tensor(sigma, dtype=noise.dtype)
        if self.flow:
            return s * noise + (1.0 - s) * latent
        trained_so = max_denoise and self.prediction != "cosmos_rflow"
        return noise * ((1.0 + s**2).sqrt() if trained_so else s) + latent

    def noise_unscaling(self, sigma: float, x: Latents) -> Latents:
        """What is left at the last noise level, in the scale of latents: a flow that stops half-way is enlarged."""
        return x / (1.0 - sigma) if self.flow and 0.0 < sigma < 1.0 else x

    def is_max_denoise(self, sigmas: NoiseLevels) -> bool:
        """Whether these noise levels start where training ends, so that nothing of the latent should be left."""
        if not len(sigmas):
            return False
        first = sigmas[0].item()
        return math.isclose(self.sigma_max, first, rel_tol=1e-5) or first > self.sigma_max


@dataclass(frozen=True)
class DiscreteSampling(ModelSampling):
    """The noise levels of a network trained on discrete timesteps. ValueError if the table would not be ascending.

    Args:
        distilled: how many of the timesteps it was distilled on, at equal distance; 0: it knows all of them.
    """

    beta_start: float = 0.00085
    beta_end: float = 0.012
    schedule: BetaSchedule = "scaled_linear"
    steps: int = 1000
    prediction: Prediction = "epsilon"
    zero_terminal_snr: bool = False
    distilled: int = 0
    sigma_data: float = 1.0

    def __post_init__(self) -> None:
        if self.schedule not in ("scaled_linear", "linear"):
            raise ValueError(f"unknown beta schedule {self.schedule!r}; expected 'scaled_linear' or 'linear'")
        if self.prediction not in DISCRETE:
            raise ValueError(f"unknown prediction {self.prediction!r}; expected one of {', '.join(DISCRETE)}")
        if not 0.0 < self.beta_start < 1.0 or not 0.0 < self.beta_end < 1.0 or self.steps < 2:
            raise ValueError(
                f"betas from {self.beta_start} to {self.beta_end} in {self.steps} steps: "
                "expected both between 0 and 1, and at least 2 steps"
            )

    @property
    def sigmas(self) -> NoiseLevels:
        """The noise level of every timestep, ascending, float32."""
        return self._tables()[0]

    @property
    def stride(self) -> int:
        """How many timesteps lie between two that the network knows."""
        return self.steps // self.distilled if self.distilled else 1

    def timestep(self, sigma: float) -> float:
        """The timestep whose noise level is nearest to sigma in the logarithm; sigma 0 gives the first."""
        index = int((torch.tensor(sigma).log() - self._tables()[1]).abs().argmin().item())
        return index * self.stride + self.stride - 1

    def sigma(self, t: float) -> float:
        """The noise level at timestep t, log-linear between the table's entries, clamped to its ends."""
        log_sigmas = self._tables()[1]
        place = (torch.tensor(t, dtype=torch.float32) - (self.stride - 1)) / self.stride
        clamped = place.clamp(0, len(log_sigmas) - 1)
        low, high = int(clamped.floor().item()), int(clamped.ceil().item())
        w = clamped.frac()
        return ((1 - w) * log_sigmas[low] + w * log_sigmas[high]).exp().item()

    def percent_to_sigma(self, percent: float) -> float:
        if percent <= 0.0:
            return BEYOND_SIGMA_MAX
        if percent >= 1.0:
            return 0.0
        return self.sigma((1.0 - percent) * (self.steps - 1))

    def _tables(self) -> tuple[NoiseLevels, NoiseLevels]:
        sigmas, logs = sigma_table(self.beta_start, self.beta_end, self.schedule, self.steps, self.zero_terminal_snr)
        first = self.stride - 1
        return (sigmas[first :: self.stride], logs[first :: self.stride]) if first else (sigmas, logs)
