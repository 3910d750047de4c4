"""GLIGEN's layers in a network: gated self-attention to phrases in boxes, Li et al. (2023)."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch import device as Device
from torch.nn import Module

from graph.collector import collector_paused
from nodes.adapter_names import canonical_shapes, original_names, unet_family
from nodes.gligen_layout import attended_blocks, gligen_plan
from nodes.grounded_prompts import Box
from nodes.identification import identify
from nodes.materialise import Kind, load_network
from nodes.model_errors import ModelError
from nodes.models import ModelPool
from nodes.precision import Precision
from nodes.values import Weights
from nodes.weight_files import read_header
from nodes.weight_places import Place, shapes_below

GLIGEN = Kind("", gligen_plan, lambda name: (Place(name),))
MOST = 30
"""So many boxes a network is told of; fewer are filled up with learnt nothings."""


class Boxes(NamedTuple):
    """Where boxes are (left, top, right, bottom in shares of the sides), what is there, and which are any."""

    places: Float[Tensor, "batch boxes 4"]
    phrases: Float[Tensor, "batch boxes width"]
    present: Float[Tensor, "batch boxes"]


def boxes_in(boxes: Sequence[Box], size: tuple[int, int], batch: int) -> Boxes:
    """Boxes in a part of a latent, of a height and a width; the first 30."""
    height, width = size
    phrases = torch.zeros(MOST, boxes[0].phrase.shape[-1])
    places, present = torch.zeros(MOST, 4), torch.zeros(MOST)
    for at, box in enumerate(boxes[:MOST]):
        right, bottom = box.left + box.width, box.top + box.height
        places[at] = torch.tensor([box.left / width, box.top / height, right / width, bottom / height])
        phrases[at], present[at] = box.phrase[0], 1
    return Boxes(*(tensor.expand(batch, *tensor.shape) for tensor in (places, phrases, present)))


def gligen_layers(models: ModelPool, gligen: Weights, precision: Precision) -> "Layers":
    """GLIGEN's layers, from the pool. Raises ModelError."""

    def load(device: Device) -> Module:
        return load_network(gligen, GLIGEN, Layers, precision, device)

    return cast(Layers, models.network(gligen, "GLIGEN", precision, load))


def ground(view: Module, network: Module, layers: "Layers") -> None:
    """Put GLIGEN's layers into a view of a network, in place."""
    shapes = {name: tuple(weight.shape) for name, weight in network.state_dict().items()}
    blocks = attended_blocks(shapes, original_names(shapes))
    cast(Any, view).position_net = layers.position_net
    for name, fuser in zip(layers.blocks, layers.fusers, strict=True):
        cast(Any, view.get_submodule(blocks[name][0])).fuser = fuser


@lru_cache(maxsize=64)
def check_fit(model: Weights, gligen: Weights) -> None:
    """Raise ModelError unless the GLIGEN has a layer of the right size for each transformer of the model's U-Net."""
    shapes = canonical_shapes(model, "U-Net")
    blocks = attended_blocks(shapes, original_names(shapes))
    wanted = {block: size for block, (_, size) in blocks.items()}
    header = read_header(gligen.path)
    fusers = gligen_plan(shapes_below(header, gligen.part)).config["fusers"]
    found = {fuser.block: (fuser.width, fuser.context) for fuser in fusers}
    if found == wanted:
        return
    own, theirs = identify(header), unet_family(shapes) or "of no known family"
    differs = next((block for block in sorted({*found, *wanted}) if found.get(block) != wanted.get(block)), "")
    reason = (
        f"it is {own}, which does not fit the U-Net of {model.name!r} ({theirs}): for {differs} it has a layer of "
        f"{_size(found.get(differs))}, and the U-Net one of {_size(wanted.get(differs))}"
    )
    raise ModelError(gligen.path, reason, "Choose one made for this model.")


def _size(size: tuple[int, int] | None) -> str:
    return "no size" if size is None else f"{size[0]} x {size[1]}"


class Layers(Module):
    """GLIGEN's layers as diffusers has them, in the order of `blocks`."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        with collector_paused():
            from diffusers.models.attention import GatedSelfAttentionDense
            from diffusers.models.embeddings import GLIGENTextBoundingboxProjection
        self.blocks: list[str] = [fuser.block for fuser in config["fusers"]]
        self.position_net: Module = GLIGENTextBoundingboxProjection(config["phrases"], config["tokens"])
        self.fusers = torch.nn.ModuleList(
            GatedSelfAttentionDense(fuser.width, fuser.context, fuser.heads, fuser.width // fuser.heads)
            for fuser in config["fusers"]
        )
