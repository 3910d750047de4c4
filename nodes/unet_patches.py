"""Give a model patches of its U-Net, and guidance by the U-Net's own attention."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from graph.literals import Between
from graph.node import node
from nodes.architectures import for_unets
from nodes.guidance import guided_by
from nodes.network_patches import (
    Compiled,
    Downscaled,
    FreeU,
    IdentityAttention,
    MergedTokens,
    NetworkPatch,
    RecordedAttention,
    Resize,
    TiledAttention,
)
from nodes.rules import Evaluation, GuidanceRule
from nodes.values import Model

if TYPE_CHECKING:
    from nodes.rules import Latents

LEAST_SIDE = 5
"""Of latents that self-attention guidance can blur."""

Backbone = Annotated[float, Between(0, 10, "Above 1 strengthens shapes.", step=0.01)]
Skip = Annotated[float, Between(0, 10, "Below 1 weakens what is large in the detail.", step=0.01)]
Share = Annotated[float, Between(0, 1, "A share of the sampling.", step=0.001)]


@dataclass(frozen=True)
class Perturbed(GuidanceRule):
    scale: float

    def after(self, found: Evaluation, guided: "Latents") -> "Latents":
        if not self.scale:
            return guided
        return guided + (found.cond - found.ask("cond", found.x, (IdentityAttention(),))) * self.scale


@dataclass(frozen=True)
class SelfAttention(GuidanceRule):
    scale: float
    blur_sigma: float

    needs_uncond = True
    needs_attention = True

    def after(self, found: Evaluation, guided: "Latents") -> "Latents":
        from nodes.maths.hidden_features import blurred_where_attended

        if found.uncond is None or found.attention is None or min(guided.shape[-2:]) < LEAST_SIDE:
            return guided
        degraded = blurred_where_attended(found.uncond, found.attention, self.blur_sigma)
        return guided + (degraded - found.ask("uncond", degraded + found.x - found.uncond)) * self.scale


@node("PerturbedAttentionGuidance", category="model_patches/unet")
def perturbed_attention(
    model: Model,
    scale: Annotated[float, Between(0, 100, "How far away from it; 0 not at all.", step=0.01, round=0.01)] = 3.0,
) -> Model:
    """Guide away from what the network predicts when its places do not look at each other (Ahn et al. 2024)."""
    for_unets(model, IdentityAttention.made_by)
    return guided_by(model, Perturbed(scale))


@node("SelfAttentionGuidance", category="_for_testing", stage="experimental")
def self_attention(
    model: Model,
    scale: Annotated[float, Between(-2, 5, "How far away from it.", step=0.01)] = 0.5,
    blur_sigma: Annotated[float, Between(0, 10, "How far it is blurred, in pixels of the latent.", step=0.1)] = 2.0,
) -> Model:
    """Guide away from what the network makes of a picture blurred where it looks the most (Hong et al. 2023)."""
    for_unets(model, RecordedAttention.made_by)
    return guided_by(model, SelfAttention(scale, blur_sigma))


@node("FreeU", category="model_patches/unet")
def free_u(model: Model, b1: Backbone = 1.1, b2: Backbone = 1.2, s1: Skip = 0.9, s2: Skip = 0.2) -> Model:
    """Strengthen the U-Net's backbone and weaken its skip connections (Si et al. 2023)."""
    return patched_by(model, FreeU((b1, b2), (s1, s2), by_mean=False))


@node("FreeU_V2", category="model_patches/unet")
def free_u_2(model: Model, b1: Backbone = 1.3, b2: Backbone = 1.4, s1: Skip = 0.9, s2: Skip = 0.2) -> Model:
    """FreeU that strengthens each place by how much is going on there (Si et al. 2023)."""
    return patched_by(model, FreeU((b1, b2), (s1, s2), by_mean=True))


@node("HyperTile", category="model_patches/unet")
def hyper_tile(
    model: Model,
    tile_size: Annotated[int, Between(1, 2048, "The least side of a tile, in pixels.")] = 256,
    swap_size: Annotated[
        int, Between(1, 128, "Among how many sizes to change, by layer and step; up to 2 keeps one.")
    ] = 2,
    max_depth: Annotated[int, Between(0, 10, "How many halvings of the resolution to tile.")] = 0,
    scale_depth: Annotated[bool, Field(description="Larger tiles at lower resolutions.")] = False,
) -> Model:
    """Quicker large pictures: self-attention within tiles. Their sizes follow from layer and timestep alone."""
    return patched_by(model, TiledAttention(max(32, tile_size) // 8, swap_size, max_depth, scale_depth))


@node("TomePatchModel", category="model_patches/unet")
def merge_tokens(
    model: Model,
    ratio: Annotated[float, Between(0, 1, "The share of tokens merged.", step=0.01)] = 0.3,
) -> Model:
    """Quicker: like tokens attend as one (Bolya and Hoffman 2023). Which do follows from layer and timestep alone."""
    return patched_by(model, MergedTokens(ratio))


@node("PatchModelAddDownscale", category="model_patches/unet")
def downscale(
    model: Model,
    block_number: Annotated[
        int, Between(1, 32, "After which input block, counted as in the original layout.", step=1)
    ] = 3,
    downscale_factor: Annotated[float, Between(0.1, 9, "How many times smaller.", step=0.001)] = 2.0,
    start_percent: Share = 0.0,
    end_percent: Share = 0.35,
    downscale_after_skip: Annotated[
        bool, Field(description="Leave the skip connection of that block at full resolution.")
    ] = True,
    downscale_method: Resize = "bicubic",
    upscale_method: Resize = "bicubic",
) -> Model:
    """Work at a lower resolution inside at first: large pictures without doubled bodies ("deep shrink")."""
    return patched_by(
        model,
        Downscaled(
            block_number,
            downscale_factor,
            downscale_after_skip,
            downscale_method,
            upscale_method,
            first=start_percent,
            last=end_percent,
        ),
    )


def patched_by(model: Model, patch: NetworkPatch) -> Model:
    """The model with a patch more, which takes its turn after those it has. Raises WrongArchitecture."""
    if not isinstance(patch, Compiled):
        for_unets(model, patch.made_by)
    return replace(model, network_patches=(*model.network_patches, patch))
