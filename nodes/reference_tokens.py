"""Pictures that Flux Kontext is shown, as tokens beside those of the latent that is sampled."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from nodes.latent_scale import for_network
from nodes.maths.patches import PATCH, padded, positions, side_by_side, to_tokens
from nodes.maths.resize import fit_batch
from nodes.values import Model, Prompt

SHOWN = 1
"""The number that is told of pictures that are shown; the one that is made has 0."""


class WrongReference(ValueError):
    """A network cannot be shown a picture, or not this one."""


class References(NamedTuple):
    """Tokens of pictures, and where each lies."""

    references: Float[Tensor, "batch tokens width"]
    positions: Float[Tensor, "batch tokens 3"]


def check_references(model: Model, prompt: Prompt) -> None:
    """Raise WrongReference if a prompt shows pictures that the model's network cannot be shown."""
    name = model.weights.name
    if prompt.references and model.architecture != "Flux":
        found = "a U-Net" if model.architecture == "U-Net" else f"one of {model.architecture}"
        raise WrongReference(
            f"ReferenceLatent shows pictures to networks of Flux, but that of {name!r} is {found}; take it out, or "
            "load Flux Kontext"
        )
    for latent in prompt.references:
        if latent.shape[1] != model.latent_channels:
            raise WrongReference(
                f"ReferenceLatent shows a latent of {latent.shape[1]} channels, and {name!r} takes "
                f"{model.latent_channels}; encode the picture with the VAE that belongs to the model"
            )


def reference_tokens(model: Model, prompt: Prompt, batch: int) -> References:
    """The pictures that a prompt shows, side by side on one sheet."""
    whole = [padded(for_network(model, fit_batch(latent, batch)), PATCH) for latent in prompt.references]
    sizes = [(latent.shape[-2] // PATCH, latent.shape[-1] // PATCH) for latent in whole]
    places = [positions(*size, SHOWN, top, left) for size, (top, left) in zip(sizes, side_by_side(sizes), strict=True)]
    tokens = torch.cat([to_tokens(latent, PATCH) for latent in whole], 1)
    return References(tokens, torch.cat(places).expand(batch, -1, -1))
