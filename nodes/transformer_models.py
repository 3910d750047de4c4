"""How diffusion transformers were trained: their noise levels, and the scale of their latents. Imports no torch."""

from collections.abc import Mapping
from dataclasses import replace
from math import exp
from typing import Any, Literal

from nodes.folder_configurations import FlowConfiguration, VaeConfiguration
from nodes.values import FlowLevels, Model, Variant, Weights

TransformerFamily = Literal["SD 3", "Flux"]
CHANNELS = 16
LATENTS: Mapping[TransformerFamily, tuple[float, float]] = {"SD 3": (1.5305, 0.0609), "Flux": (0.3611, 0.1159)}
"""The scale of their latents, and the shift before it."""
SHIFT = 3.0
"""Stable Diffusion 3's, in files that do not state it."""
MU = 1.15
"""The logarithm of the shift that Flux's network was trained with that is told a guidance, for large pictures."""
FINE = 10000


def transformer_model(
    weights: Weights, family: TransformerFamily, config: Mapping[str, Any], variant: Variant = "plain"
) -> Model:
    """A reference to a transformer of a configuration, which was trained as its family is."""
    scale, shift = LATENTS[family]
    guided = bool(config.get("guidance_embeds"))
    return Model(
        weights,
        prediction="flow",
        levels=flow_levels(family, guided=guided),
        latent_scale=scale,
        latent_shift=shift,
        latent_channels=CHANNELS,
        variant=variant,
        told="pooled and guidance" if guided else "pooled",
        architecture=family,
    )


def flow_levels(family: TransformerFamily, *, guided: bool) -> FlowLevels:
    """The noise levels of a family; Flux's depend on whether the network is told a guidance."""
    if family == "SD 3":
        return FlowLevels(SHIFT)
    return FlowLevels(exp(MU), multiplier=1.0, entries=FINE) if guided else FlowLevels(1.0, multiplier=1.0)


def as_configured(model: Model, scheduler: FlowConfiguration | None, vae: VaeConfiguration | None) -> Model:
    """The model as a folder's configurations say, as far as there are some."""
    if scheduler is not None and not scheduler.use_dynamic_shifting and isinstance(model.levels, FlowLevels):
        model = replace(model, levels=replace(model.levels, shift=scheduler.shift))
    return model if vae is None else replace(model, latent_scale=vae.scale, latent_shift=vae.shift)
