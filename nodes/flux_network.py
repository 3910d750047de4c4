"""Flux's network as diffusers has it, but told of times without rounding them."""

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor
from torch.nn import Module

THOUSANDTHS = 1000.0
"""It is told of shares, which it counts in thousandths."""


class FluxNetwork:
    """How such networks are built."""

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> Module:
        """The network of diffusers' configuration, whose `pooled_projections` are what ExactTimes takes."""
        from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

        network: Any = cast(Any, FluxTransformer2DModel).from_config(config)
        network.time_text_embed = ExactTimes(network.time_text_embed)
        return network


class ExactTimes(Module):
    """What Flux's networks make of times, guidance and the pooled state, in the place of diffusers' module for that.

    diffusers rounds the first two to the network's number format before they are counted in thousandths, so that in
    bf16 it hardly tells one step from the next. They come with the pooled state here, and are not rounded. Without a
    guidance nothing is said of it.
    """

    def __init__(self, embedded: Module) -> None:
        super().__init__()
        for name, part in embedded.named_children():
            self.add_module(name, part)

    def forward(self, *told: Any) -> Tensor:
        parts = cast(Any, self)
        pooled, timestep, guidance = told[-1]
        found = parts.timestep_embedder(parts.time_proj(timestep.float() * THOUSANDTHS).to(pooled.dtype))
        if guidance is not None and hasattr(self, "guidance_embedder"):
            times = parts.time_proj(guidance.float() * THOUSANDTHS).to(pooled.dtype)
            found = found + parts.guidance_embedder(times)
        return found + parts.text_embedder(pooled)
