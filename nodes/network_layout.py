"""Denoising networks of every kind: which one a file's names and shapes describe, and its names in both layouts."""

from collections.abc import Callable, Mapping
from contextlib import suppress

from nodes import flux_layout, sd3_layout
from nodes.flux_layout import flux_places, flux_plan, is_flux
from nodes.scaled_weights import is_beside_weights
from nodes.sd3_layout import is_sd3, sd3_places, sd3_plan
from nodes.unet_layout import (
    ORIGINAL_MARK,
    structure_of_diffusers,
    structure_of_original,
    unet_names,
    unet_plan,
)
from nodes.values import Architecture
from nodes.weight_places import NetworkPlan, NotThisNetwork, Place, Shape, Shapes, count, placed, shape_of

_PLANS: Mapping[Architecture, Callable[[Shapes], NetworkPlan]] = {
    "U-Net": unet_plan,
    "SD 3": sd3_plan,
    "Flux": flux_plan,
}


def architecture_of(shapes: Shapes) -> Architecture:
    """Which kind of network names and shapes are of; a U-Net if it is none of the others."""
    return "SD 3" if is_sd3(shapes) else "Flux" if is_flux(shapes) else "U-Net"


def network_plan(shapes: Shapes) -> NetworkPlan:
    """The denoising network that a file's names and shapes describe. Raises NotThisNetwork."""
    return _PLANS[architecture_of(shapes)](shapes)


def by_diffusers_names(shapes: Shapes) -> dict[str, Shape]:
    """The shapes of a network's weights by diffusers' names, whichever a file has. Raises NotThisNetwork."""
    match architecture_of(shapes):
        case "SD 3" if sd3_layout.ORIGINAL_MARKS[0] in shapes:
            return placed(shapes, sd3_places(count(shapes, f"joint_blocks.{{}}.{sd3_layout.COUNTED}")))
        case "Flux" if flux_layout.ORIGINAL_MARKS[0] in shapes:
            return placed(shapes, flux_layout.original_places(shapes))
        case "U-Net" if ORIGINAL_MARK in shapes:
            table = unet_names(structure_of_original(shapes))
            return {table.diffusers(name): shape for name, shape in shapes.items()}
        case "U-Net":
            return dict(shapes)
        case _:
            return {name: shape for name, shape in shapes.items() if not is_beside_weights(name)}


def original_places(shapes: Shapes) -> dict[str, Place]:
    """Where each weight of a network lies in the original layout; under the same name in that of no known network.

    Args:
        shapes: of its weights, by diffusers' names.
    """
    table: Mapping[str, Place] = {}
    with suppress(NotThisNetwork):
        table = _original_places(shapes)
    return {name: table.get(name, Place(name)) for name in shapes}


def _original_places(shapes: Shapes) -> Mapping[str, Place]:
    blocks = count(shapes, "transformer_blocks.{}.attn.to_q.weight")
    match architecture_of(shapes):
        case "SD 3":
            return sd3_places(blocks)
        case "Flux":
            width = shape_of(shapes, "x_embedder.weight", 2)[0]
            inner = shape_of(shapes, "single_transformer_blocks.0.proj_mlp.weight", 2)[0]
            singles = count(shapes, "single_transformer_blocks.{}.attn.to_q.weight")
            return flux_places(blocks, singles, (width, width, width, inner))
        case "U-Net":
            names = unet_names(structure_of_diffusers(shapes))
            return {name: Place(names.original(name)) for name in shapes}
