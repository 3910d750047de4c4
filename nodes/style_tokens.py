"""Tokens of prompts for Flux, made of what SigLIP says of pictures by a Redux."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch import device as Device
from torch.nn import Linear, Module
from torch.nn.functional import silu

from nodes.materialise import Kind, load_network
from nodes.model_errors import WrongPrompt
from nodes.models import ModelPool
from nodes.picture_prompts import ClipVisionOutput
from nodes.precision import Precision
from nodes.style_layout import redux_plan
from nodes.style_models import StyleModel
from nodes.weight_places import Place

REDUX = Kind("", redux_plan, lambda name: (Place(name),))
PRECISION = Precision("fp32", False, "a picture is taken in once, and exactly")


class Redux(Module):
    """Two layers."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.redux_up = Linear(config["width"], config["inner"])
        self.redux_down = Linear(config["inner"], config["tokens"])

    def forward(self, states: Tensor) -> Tensor:
        return self.redux_down(silu(self.redux_up(states)))


def style_tokens(models: ModelPool, style: StyleModel, said: ClipVisionOutput) -> Float[Tensor, "1 tokens width"]:
    """Of all pictures, one after another. Raises WrongPrompt for those of another picture encoder."""
    states = said.last_hidden_state
    if states.shape[-1] != style.width:
        raise WrongPrompt(style.width, states.shape[-1], "states of a picture", "SigLIP, by CLIPVisionLoader")

    def load(device: Device) -> Module:
        return load_network(style.weights, REDUX, Redux, PRECISION, device)

    network = models.network(style.weights, "style model", PRECISION, load)
    with torch.inference_mode():
        return network(states.to(models.device)).flatten(0, 1)[None].cpu()
