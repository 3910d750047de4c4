"""Terms that several samplers are made of, named as in the literature: sigma, t = -log sigma, d = dx/dsigma."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nodes.maths.model_sampling import Latents
from nodes.maths.samplers.contract import Denoiser, State


def to_d(x: Latents, sigma: float | Tensor, denoised: Latents) -> Latents:
    """The slope dx/dsigma of the probability flow."""
    return (x - denoised) / sigma


def to_t(sigma: Tensor) -> Tensor:
    return -sigma.log()


def to_sigma(t: Tensor) -> Tensor:
    return (-t).exp()


def step_in_t(sigma: float, sigma_next: float) -> float:
    """How long a step is in t = -log sigma."""
    return math.log(sigma / sigma_next)


def ancestral(sigma: Tensor, sigma_next: Tensor, eta: float = 1.0) -> tuple[Tensor, Tensor]:
    """The level to step down to and the noise to add there, so that the sum has variance sigma_next squared.

    Song et al. (2021), "Denoising Diffusion Implicit Models", equation 16. At eta 0 no noise is added.
    """
    sigma_up = torch.minimum(sigma_next, eta * (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2) ** 0.5)
    return (sigma_next**2 - sigma_up**2) ** 0.5, sigma_up


def flow_ancestral(sigma: float, sigma_next: float, eta: float = 1.0) -> tuple[float, float, float]:
    """The level of a flow to step down to, the factor to scale by from there, and the noise to add: the next level.

    Signal and noise at sigma_next come out at (1 - sigma_next) and sigma_next.
    """
    down = sigma_next * (1.0 + (sigma_next / sigma - 1.0) * eta)
    scale = (1.0 - sigma_next) / (1.0 - down)
    return down, scale, math.sqrt(max(sigma_next**2 - (down * scale) ** 2, 0.0))


def midpoint(x: Latents, d: Latents, denoise: Denoiser, sigma: Tensor, sigma_next: Tensor) -> Latents:
    """Step with the slope found halfway in log sigma."""
    sigma_mid = sigma.log().lerp(sigma_next.log(), 0.5).exp()
    x_2 = x + d * (sigma_mid - sigma)
    return x + to_d(x_2, sigma_mid, denoise(x_2, sigma_mid.item())) * (sigma_next - sigma)


def exponential_step(x: Latents, denoised: Latents, t: Tensor, t_next: Tensor) -> Latents:
    """The exact solution in t = -log sigma while the prediction is constant, Lu et al. (2022)."""
    return to_sigma(t_next) / to_sigma(t) * x - (t - t_next).expm1() * denoised


def phi_1(z: float) -> float:
    """(e^z - 1) / z, Hochbruck and Ostermann (2010), equation 2.10."""
    return math.expm1(z) / z


def phi_2(z: float) -> float:
    """(phi_1 - 1) / z."""
    return (phi_1(z) - 1) / z


def phi_3(z: float) -> float:
    """(phi_2 - 1/2) / z."""
    return (phi_2(z) - 0.5) / z


def step_ratio(state: State, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """The last step's length over this one's, in t."""
    (previous,) = scalars(state.x, state.sigmas[-1])
    return (to_t(sigma) - to_t(previous)) / (to_t(sigma_next) - to_t(sigma))


def scalars(x: Latents, *sigmas: float) -> tuple[Tensor, ...]:
    """Sigmas as the reference computes with them, in the precision of x.

    A midpoint that is off by one rounding asks the Brownian path for a visibly different increment.
    """
    return tuple(torch.tensor(sigma, dtype=x.dtype) for sigma in sigmas)


def combined(weights: Sequence[float], latents: Sequence[Latents]) -> Latents:
    """The sum of latents, each times its weight."""
    total = weights[0] * latents[0]
    for weight, latent in zip(weights[1:], latents[1:], strict=True):
        total = total + weight * latent
    return total
