"""How networks are asked: whatever their kind, with a latent, a timestep, the states of a text, and what is told."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Module

from nodes.added_inputs import Told
from nodes.control_networks import Residuals
from nodes.maths.patches import PATCH, from_tokens, padded, positions, to_tokens
from nodes.model_errors import WrongPrompt
from nodes.values import Architecture

Latents = Float[Tensor, "batch channels height width"]
FACTOR = 8
"""Pixels of a picture's side that one of a latent stands for."""


class Asked(NamedTuple):
    """What a network is asked, in its number format and on its device, but for `told`."""

    x: Latents
    timestep: Float[Tensor, " batch"]
    text: Float[Tensor, "batch tokens width"]
    told: Told | None
    residuals: Residuals | None


class PictureTooLarge(ValueError):
    """A network knows no positions for so large a picture."""

    def __init__(self, height: int, width: int, most: int) -> None:
        pixels = FACTOR * most
        super().__init__(
            f"the network knows positions in pictures of up to {pixels} x {pixels} pixels, but this one has "
            f"{width * FACTOR} x {height * FACTOR}; choose a smaller size"
        )


def ask(architecture: Architecture, network: Module, asked: Asked) -> Tensor:
    """A network's raw prediction. Raises WrongPrompt and PictureTooLarge."""
    return CALLS[architecture](cast(Any, network), asked)


def _ask_unet(network: Any, asked: Asked) -> Tensor:
    x, timestep, text, told, residuals = asked
    _check_width(network.config.cross_attention_dim, text)
    more = {} if told is None else _unet_inputs(told, x)
    more |= {} if residuals is None else residuals.arguments(x.dtype)
    return network(x, timestep, text, return_dict=False, **more)[0]


def _unet_inputs(told: Told, like: Tensor) -> dict[str, Any]:
    """What a U-Net is told, by the names of diffusers' arguments."""
    inputs: dict[str, Any] = {}
    if told.pooled is not None and told.sizes is not None:
        inputs["added_cond_kwargs"] = {"text_embeds": told.pooled.to(like), "time_ids": told.sizes.to(like.device)}
    if told.label is not None:
        inputs["class_labels"] = told.label.to(like)
    if told.places is not None and told.phrases is not None and told.present is not None:
        boxes = {"boxes": told.places, "positive_embeddings": told.phrases, "masks": told.present}
        inputs["cross_attention_kwargs"] = {"gligen": {name: tensor.to(like) for name, tensor in boxes.items()}}
    return inputs


def _ask_sd3(network: Any, asked: Asked) -> Tensor:
    x, config = asked.x, network.config
    pooled = _checked(network, asked)
    height, width = x.shape[-2:]
    most = config.pos_embed_max_size * config.patch_size
    if max(height, width) > most:
        raise PictureTooLarge(height, width, most)
    whole = padded(x, config.patch_size)
    # By names but for the first, by whose shape a compiled network is told apart from others.
    output: Tensor = network(
        whole,
        encoder_hidden_states=asked.text,
        pooled_projections=pooled,
        timestep=asked.timestep,
        return_dict=False,
    )[0]
    return output[..., :height, :width]


def _ask_flux(network: Any, asked: Asked) -> Tensor:
    x, told = asked.x, asked.told
    pooled = _checked(network, asked)
    height, width = x.shape[-2:]
    whole = padded(x, PATCH)
    rows, columns = (side // PATCH for side in whole.shape[-2:])
    tokens, places = to_tokens(whole, PATCH), positions(rows, columns).to(x.device)
    count = tokens.shape[1]
    if told is not None and told.references is not None and told.positions is not None:
        tokens = torch.cat([tokens, told.references.to(x)], 1)
        places = torch.cat([places, told.positions[0]])
    output: Tensor = network(
        tokens,
        encoder_hidden_states=asked.text,
        pooled_projections=(pooled, asked.timestep, told and told.guidance),
        timestep=asked.timestep,
        img_ids=places,
        txt_ids=torch.zeros(asked.text.shape[1], places.shape[1], device=x.device),
        return_dict=False,
    )[0]
    return from_tokens(output[:, :count], rows, PATCH)[..., :height, :width]


def _checked(network: Any, asked: Asked) -> Tensor:
    """The pooled state, if the prompt was encoded for such a network. Raises WrongPrompt."""
    config, pooled = network.config, None if asked.told is None else asked.told.pooled
    _check_width(config.joint_attention_dim, asked.text)
    if pooled is None or pooled.shape[-1] != config.pooled_projection_dim:
        raise WrongPrompt(config.pooled_projection_dim, 0 if pooled is None else pooled.shape[-1], "a pooled state")
    return pooled.to(asked.x)


def _check_width(wanted: int, text: Tensor) -> None:
    if text.shape[-1] != wanted:
        raise WrongPrompt(wanted, text.shape[-1])


CALLS: Mapping[Architecture, Callable[[Any, Asked], Tensor]] = {
    "U-Net": _ask_unet,
    "SD 3": _ask_sd3,
    "Flux": _ask_flux,
}
