"""The diffusion itself: Stable Diffusion's schedule, velocities, and a small Euler sampler."""

from collections.abc import Callable
from typing import Any, cast

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor

Latents = Float[Tensor, "count 4 height width"]
States = Float[Tensor, "count length 128"]
Velocity = Callable[[Latents, Float[Tensor, ""]], Latents]

SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
}


def signal() -> Float[Tensor, "1000"]:
    """How much of the picture's variance is left at each timestep (alpha bar)."""
    first, last, count = SCHEDULE["beta_start"], SCHEDULE["beta_end"], SCHEDULE["num_train_timesteps"]
    betas = torch.linspace(first**0.5, last**0.5, count, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


def noised(clean: Latents, noise: Latents, alpha_bar: Float[Tensor, " count"]) -> tuple[Latents, Latents]:
    """The noised latents, and the velocity a network should see in them (Salimans and Ho 2022)."""
    keep, blur = alpha_bar.sqrt()[:, None, None, None], (1 - alpha_bar).sqrt()[:, None, None, None]
    return keep * clean + blur * noise, keep * noise - blur * clean


def predict(
    unet: UNet2DConditionModel, x: Latents, t: Int[Tensor, " count"] | Float[Tensor, ""], text: States
) -> Latents:
    return cast(Any, unet)(x, t, encoder_hidden_states=text).sample


def sigmas(steps: int) -> tuple[Float[Tensor, " steps"], Float[Tensor, " steps+1"]]:
    """Evenly spread timesteps, and the noise levels from one to the next, the last one 0."""
    table = (1 / signal() - 1).sqrt()
    times = torch.linspace(len(table) - 1, 0, steps)
    low = times.floor().long()
    levels = table[low].lerp(table[(low + 1).clamp(max=len(table) - 1)], times - low)
    return times, torch.cat([levels, torch.zeros(1)])


@torch.no_grad()
def euler(velocity: Velocity, noise: Latents, steps: int) -> Latents:
    """Integrate from pure noise to a picture's latents (Karras et al. 2022, algorithm 2 without churn)."""
    times, levels = sigmas(steps)
    x = noise * (1 + levels[0] ** 2).sqrt()
    for time, sigma, following in zip(times, levels, levels[1:], strict=False):
        v = velocity(x / (1 + sigma**2).sqrt(), time)
        denoised = x / (1 + sigma**2) - v * sigma / (1 + sigma**2).sqrt()
        x = x + (x - denoised) / sigma * (following - sigma)
    return x


def guided(unet: UNet2DConditionModel, text: States, empty: States, scale: float) -> Velocity:
    """Classifier-free guidance, both halves in one batch (Ho and Salimans 2022)."""
    both = torch.cat([text, empty.expand_as(text)])

    def velocity(x: Latents, time: Float[Tensor, ""]) -> Latents:
        wanted, anything = predict(unet, torch.cat([x, x]), time, both).chunk(2)
        return anything + scale * (wanted - anything)

    return velocity


def seeded(seeds: list[int], size: int) -> Latents:
    """Each picture's own noise, the same whatever else is in the batch."""
    shape = (4, size // 8, size // 8)
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
