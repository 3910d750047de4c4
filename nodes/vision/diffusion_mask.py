"""Where a picture would have to change: a mask from what a diffusion model predicts under two prompts."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from graph.cancellation import Progress
from graph.literals import Widget
from graph.node import node
from graph.values import INJECTED
from nodes.models import ModelPool
from nodes.values import Conditioning, Image, Mask, Model, Vae
from nodes.vision.diffusion_classifier import scaled_latent

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

OUTLIERS = 3.0
"""Differences beyond so many times their mean count as that."""


@node("DiffEditMask", category="vision", title="Mask by Two Prompts", lane="device")
def mask_by_prompts(
    model: Model,
    vae: Vae,
    image: Image,
    positive: Conditioning,
    negative: Conditioning,
    noise: Annotated[
        float,
        Field(ge=0.01, le=0.99, description="How much noise is put on the picture: 1 hides it."),
        Widget(step=0.01),
    ] = 0.5,
    draws: Annotated[int, Field(ge=1, le=1000, description="How often noise is drawn.")] = 8,
    threshold: Annotated[
        float, Field(ge=0, le=1, description="What differs more belongs to the mask."), Widget(step=0.01)
    ] = 0.5,
    seed: Annotated[int, Field(ge=0, le=0xFFFFFFFFFFFFFFFF), Widget(control_after_generate=False)] = 0,
    models: ModelPool = INJECTED,
    progress: Progress = INJECTED,
) -> Mask:
    """The area that has to change for a picture of one prompt to become one of the other (Couairon et al. 2022).

    `negative` says what is there, `positive` what is to be there; where the noise that they predict differs is masked.
    """
    import torch.nn.functional as F

    latent = scaled_latent(models, model, vae, image)
    differences = _differences(models, model, latent, positive, negative, 1.0 - noise, draws, seed, progress)
    size = (latent.shape[2] * vae.factor, latent.shape[3] * vae.factor)
    inner = F.interpolate(differences[:, None], size, mode="bilinear")[:, 0] > threshold
    # Sides were cut to whole latent pixels, centred.
    rows, columns = image.pixels.shape[1] - size[0], image.pixels.shape[2] - size[1]
    edges = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
    return Mask(F.pad(inner.float(), edges).cpu())


def _differences(
    models: ModelPool,
    model: Model,
    latent: "Float[Tensor, 'batch c h w']",
    positive: Conditioning,
    negative: Conditioning,
    percent: float,
    draws: int,
    seed: int,
    progress: Progress,
) -> "Float[Tensor, 'batch h w']":
    """How far both predictions lie apart, averaged over channels and draws, from 0 to 1 within each picture."""
    import torch

    from nodes.denoiser import guided_denoiser, sampling_of

    sampling = sampling_of(model)
    sigma = sampling.percent_to_sigma(percent)
    generator = torch.Generator().manual_seed(seed)
    new, old = (guided_denoiser(models, model, each, None, 1.0, len(latent)) for each in (positive, negative))
    total = torch.zeros(len(latent), *latent.shape[2:], device=latent.device)
    for draw in range(draws):
        noise = torch.randn(latent[:1].shape, generator=generator).to(latent)
        x = sampling.noise_scaling(sigma, noise, latent)
        total += (new(x, sigma) - old(x, sigma)).abs().mean(1)
        progress(draw + 1, draws)
    largest = OUTLIERS * total.mean((1, 2), keepdim=True)
    clipped = torch.minimum(total, largest)
    low, high = clipped.amin((1, 2), keepdim=True), clipped.amax((1, 2), keepdim=True)
    return (clipped - low) / (high - low).clamp(min=1e-12)
