"""How a diffusion network is asked and answered: its noise levels, its input's scale, its output's meaning."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Latents = Float[Tensor, "batch channels height width"]
NoiseLevels = Float[Tensor, " levels"]
BetaSchedule = Literal["scaled_linear", "linear"]
Prediction = Literal["epsilon", "v_prediction", "sample"]

# The reference's stand-in for the zero that a zero-terminal-SNR table would divide by.
LAST_ALPHA_BAR = 4.8973451890853435e-08
BEYOND_SIGMA_MAX = 999999999.9


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


@dataclass(frozen=True, slots=True)
class DiscreteSampling:
    """The noise levels of a network trained on discrete timesteps, and the preconditioning around it.

    Latents are "variance exploding": x = latent + sigma * noise. All methods are pure and keep the dtype of x.
    Raises ValueError when the table would not be finite and ascending.
    """

    beta_start: float = 0.00085
    beta_end: float = 0.012
    schedule: BetaSchedule = "scaled_linear"
    steps: int = 1000
    prediction: Prediction = "epsilon"
    zero_terminal_snr: bool = False

    def __post_init__(self) -> None:
        if self.schedule not in ("scaled_linear", "linear"):
            raise ValueError(f"unknown beta schedule {self.schedule!r}; expected 'scaled_linear' or 'linear'")
        if self.prediction not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(f"unknown prediction {self.prediction!r}; expected 'epsilon', 'v_prediction' or 'sample'")
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
    def sigma_min(self) -> float:
        return self.sigmas[0].item()

    @property
    def sigma_max(self) -> float:
        return self.sigmas[-1].item()

    def timestep(self, sigma: float) -> int:
        """The timestep whose noise level is nearest to sigma in the logarithm; sigma 0 gives 0."""
        return int((torch.tensor(sigma).log() - self._tables()[1]).abs().argmin().item())

    def sigma(self, t: float) -> float:
        """The noise level at timestep t, log-linear between the table's entries, clamped to its ends."""
        log_sigmas = self._tables()[1]
        clamped = torch.tensor(t, dtype=torch.float32).clamp(0, self.steps - 1)
        low, high = int(clamped.floor().item()), int(clamped.ceil().item())
        w = clamped.frac()
        return ((1 - w) * log_sigmas[low] + w * log_sigmas[high]).exp().item()

    def percent_to_sigma(self, percent: float) -> float:
        """The noise level after this share of the sampling: 0 is above every sigma, 1 is none."""
        if percent <= 0.0:
            return BEYOND_SIGMA_MAX
        if percent >= 1.0:
            return 0.0
        return self.sigma((1.0 - percent) * (self.steps - 1))

    def scale_input(self, x: Latents, sigma: float) -> Latents:
        """What the network is shown: x at unit variance (the data's own standard deviation taken as 1)."""
        return x / (torch.tensor(sigma, dtype=x.dtype) ** 2 + 1.0) ** 0.5

    def denoised(
        self,
        x: Latents,
        output: Latents,
        sigma: float,
    ) -> Latents:
        """The clean latent that the network's output means, Ho et al. (2020), Salimans and Ho (2022)."""
        s = torch.tensor(sigma, dtype=x.dtype)
        match self.prediction:
            case "epsilon":
                return x - output * s
            case "v_prediction":
                return x / (s**2 + 1.0) - output * s / (s**2 + 1.0) ** 0.5
            case "sample":
                return output

    def noise_scaling(
        self,
        sigma: float,
        noise: Latents,
        latent: Latents,
        max_denoise: bool = False,
    ) -> Latents:
        """The latent noised to sigma; from pure noise (`max_denoise`) at the variance of training."""
        s = torch.tensor(sigma, dtype=noise.dtype)
        return noise * ((1.0 + s**2).sqrt() if max_denoise else s) + latent

    def is_max_denoise(self, sigmas: NoiseLevels) -> bool:
        """Whether these noise levels start where training ends, so that nothing of the latent should be left."""
        if not len(sigmas):
            return False
        first = sigmas[0].item()
        return math.isclose(self.sigma_max, first, rel_tol=1e-5) or first > self.sigma_max

    def _tables(self) -> tuple[NoiseLevels, NoiseLevels]:
        return sigma_table(self.beta_start, self.beta_end, self.schedule, self.steps, self.zero_terminal_snr)
