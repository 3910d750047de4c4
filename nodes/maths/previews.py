"""What a latent looks like, without a decoder: each pixel's channels, mapped linearly to red, green and blue."""

from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from nodes.maths.model_sampling import Latents

Pictures = Float[Tensor, "batch 3 height width"]


class LinearMap(NamedTuple):
    """From the channels of a latent (at the scale of its network) to RGB, 0…1: `latent @ weight + bias`."""

    weight: Float[Tensor, "channels 3"]
    bias: Float[Tensor, " 3"]


# Turner (2022), "Decoding latents to RGB without upscaling", discuss.huggingface.co/t/23204; published for RGB in -1…1.
STABLE_DIFFUSION_1 = LinearMap(
    torch.tensor([[0.298, 0.207, 0.208], [0.187, 0.286, 0.173], [-0.158, 0.189, 0.264], [-0.184, -0.271, -0.473]]) / 2,
    torch.tensor([0.5, 0.5, 0.5]),
)

# Vass (2024), "Explaining the SDXL latent space", also in diffusers' page on callbacks; published for RGB in 0…255.
STABLE_DIFFUSION_XL = LinearMap(
    torch.tensor([[60.0, 60.0, 60.0], [-60.0, -5.0, 10.0], [25.0, 15.0, -5.0], [-70.0, -50.0, -35.0]]) / 255,
    torch.tensor([150.0, 140.0, 130.0]) / 255,
)

PUBLISHED: dict[tuple[int, float], LinearMap] = {
    (4, 0.18215): STABLE_DIFFUSION_1,
    (4, 0.13025): STABLE_DIFFUSION_XL,
}
"""Maps of well-known autoencoders, by their latents' channels and scale: of Stable Diffusion 1 and 2, and of XL."""


def fit_linear_map(latents: Latents, pictures: Pictures) -> LinearMap:
    """The map with the least squared error between latents and the pictures they stand for.

    Args:
        latents: at the scale of the network.
        pictures: RGB, 0…1, of any size; averaged over the area of each latent pixel.
    """
    height, width = latents.shape[-2:]
    colours = adaptive_avg_pool2d(pictures.double(), (height, width)).movedim(1, -1).flatten(end_dim=-2)
    channels = latents.double().movedim(1, -1).flatten(end_dim=-2)
    equations = torch.cat([channels, torch.ones(len(channels), 1, dtype=torch.float64)], dim=1)
    # By orthogonal factors, not by normal equations: those would square the condition number.
    solution = cast(Tensor, cast(Any, torch.linalg).lstsq(equations, colours).solution).float()
    return LinearMap(solution[:-1], solution[-1])


def to_rgb(latents: Latents, linear: LinearMap) -> Pictures:
    """Pictures in 0…1 of the latents' size."""
    weight, bias = linear.weight.to(latents), linear.bias.to(latents)
    return (torch.einsum("bchw,cr->brhw", latents, weight) + bias[:, None, None]).clamp(0.0, 1.0)


def to_grey(latents: Latents) -> Pictures:
    """Pictures in 0…1 where nothing is known of the channels: their mean, two deviations to either side of grey."""
    mean = latents.mean(dim=1, keepdim=True)
    deviation, average = torch.std_mean(mean, dim=(2, 3), correction=0, keepdim=True)
    grey = 0.5 + (mean - average) / (4 * deviation.clamp_min(torch.finfo(mean.dtype).tiny))
    return grey.clamp(0.0, 1.0).expand(-1, 3, -1, -1)
