"""Denoising networks of every kind: which one a file's names and shapes describe."""

from collections.abc import Callable, Mapping

from nodes.flux_layout import flux_plan, is_flux
from nodes.sd3_layout import is_sd3, sd3_plan
from nodes.unet_layout import unet_plan
from nodes.values import Architecture
from nodes.weight_places import NetworkPlan, Shapes

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
