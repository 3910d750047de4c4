"""A diffusion model as a classifier: of several prompts, which one helps it most to take the noise from a picture?"""

from typing import TYPE_CHECKING, Annotated, cast

from pydantic import Field

from graph.cancellation import Progress
from graph.literals import Widget
from graph.node import node
from graph.values import INJECTED
from nodes.latent_scale import for_network
from nodes.models import ModelPool
from nodes.values import Clip, Conditioning, Image, Model, Vae
from nodes.vision.answers import Named, lines_of, named

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

Prompts = Annotated[str, Field(description="One prompt on each line."), Widget(multiline=True)]


@node("DiffusionClassifier", category="vision", title="Diffusion Classifier", lane="device")
def classify_by_denoising(
    model: Model,
    clip: Clip,
    vae: Vae,
    image: Image,
    prompts: Prompts = "",
    levels: Annotated[
        int, Field(ge=1, le=1000, description="At how many noise levels, spread evenly over the sampling.")
    ] = 8,
    draws: Annotated[int, Field(ge=1, le=1000, description="How often noise is drawn at each level.")] = 2,
    seed: Annotated[int, Field(ge=0, le=0xFFFFFFFFFFFFFFFF), Widget(control_after_generate=False)] = 0,
    models: ModelPool = INJECTED,
    progress: Progress = INJECTED,
) -> Named:
    """Which prompt fits a picture, by any diffusion model and without training (Li et al. 2023).

    A score is the negative mean squared error of the noise predicted under the prompt, in units of the noise; all
    prompts are asked about the same noise. Above is better; only differences between prompts mean something.
    """
    from nodes.text_encoding import encode_prompt

    texts = lines_of(prompts, "the list of prompts")
    latent = scaled_latent(models, model, vae, image)
    encoded = [encode_prompt(models, clip, text) for text in texts]
    errors = _errors(models, model, latent, encoded, levels, draws, seed, progress)
    scores = [[-error for error in row] for row in cast("list[list[float]]", errors.tolist())]  # pyright: ignore[reportUnknownMemberType]  # torch types it bare
    return named(texts, scores, digits=4)


def scaled_latent(models: ModelPool, model: Model, vae: Vae, image: Image) -> "Float[Tensor, 'batch c h w']":
    """The picture as the network sees it; cut to whole pixels of the latent, its middle stays."""
    from nodes.latents import encode

    latent = encode.function(image, vae, models)
    return for_network(model, latent.samples.to(models.device))


def _errors(
    models: ModelPool,
    model: Model,
    latent: "Float[Tensor, 'batch c h w']",
    prompts: list[Conditioning],
    levels: int,
    draws: int,
    seed: int,
    progress: Progress,
) -> "Float[Tensor, 'batch prompts']":
    """The mean squared error of the predicted noise, over levels and draws."""
    import torch

    from nodes.denoiser import guided_denoiser, sampling_of

    sampling = sampling_of(model)
    generator = torch.Generator().manual_seed(seed)
    errors = torch.zeros(len(latent), len(prompts))
    denoisers = [guided_denoiser(models, model, prompt, None, 1.0, len(latent)) for prompt in prompts]
    for level in range(levels):
        sigma = sampling.percent_to_sigma((level + 0.5) / levels)
        for draw in range(draws):
            noise = torch.randn(latent[:1].shape, generator=generator).to(latent)  # the same for every picture
            x = sampling.noise_scaling(sigma, noise, latent)
            # What is wrong with the latent is wrong with the noise, for x is the sum of both.
            share = (1.0 - sigma if sampling.flow else 1.0) / sigma
            for at, denoise in enumerate(denoisers):
                squares = ((denoise(x, sigma) - latent) * share).square().mean((1, 2, 3))
                errors[:, at] += squares.cpu() / (levels * draws)
            progress(level * draws + draw + 1, levels * draws)
    return errors
