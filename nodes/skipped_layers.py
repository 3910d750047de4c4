"""Guidance away from what a diffusion transformer predicts with some of its blocks left out."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from graph.literals import Between
from graph.node import node
from nodes.architectures import for_transformers
from nodes.guidance import guided_by
from nodes.network_patches import NetworkPatch, SkippedBlocks
from nodes.rules import Evaluation, GuidanceRule
from nodes.values import Model

if TYPE_CHECKING:
    from nodes.rules import Latents

Blocks = Annotated[str, Field(description="Numbers of blocks, counted from 0; those that there are not are no matter.")]
Share = Annotated[float, Between(0, 1, "A share of the sampling.", step=0.001)]
Scale = Annotated[float, Between(0, 10, "How far away from it; 0 not at all.", step=0.1)]


@dataclass(frozen=True)
class SkipLayers(GuidanceRule):
    """Between two noise levels, `scale` times away from the prediction without some blocks, and brought back to the
    spread of the prediction under the prompt by the share `rescaling`."""

    blocks: SkippedBlocks
    scale: float
    lowest: float
    highest: float
    rescaling: float

    def after(self, found: Evaluation, guided: "Latents") -> "Latents":
        from nodes.maths.guidance_rules import spread_as

        if not self.lowest <= found.sigma <= self.highest:
            return guided
        guided = guided + (found.cond - found.ask("cond", found.x, (self.blocks,))) * self.scale
        return spread_as(found.cond, guided, self.rescaling) if self.rescaling else guided


@dataclass(frozen=True)
class SkipLayersOfNegative(GuidanceRule):
    """Between two noise levels, the network is asked under the negative prompt without some of its blocks."""

    blocks: SkippedBlocks
    lowest: float
    highest: float

    def negative_patches(self, sigma: float) -> Sequence[NetworkPatch]:
        return (self.blocks,) if self.lowest <= sigma <= self.highest else ()


@node("SkipLayerGuidanceSD3", category="advanced/guidance", stage="experimental")
def skip_layers_sd3(
    model: Model,
    layers: Blocks = "7, 8, 9",
    scale: Scale = 3.0,
    start_percent: Share = 0.01,
    end_percent: Share = 0.15,
) -> Model:
    """Guide away from what the network predicts without some of its blocks: better bodies and hands."""
    for_transformers(model, "SkipLayerGuidanceSD3")
    return _away_from(model, SkippedBlocks(_numbers(layers), ()), scale, start_percent, end_percent, 0.0)


@node("SkipLayerGuidanceDiT", category="advanced/guidance", stage="experimental")
def skip_layers(
    model: Model,
    double_layers: Blocks = "7, 8, 9",
    single_layers: Blocks = "7, 8, 9",
    scale: Scale = 3.0,
    start_percent: Share = 0.01,
    end_percent: Share = 0.15,
    rescaling_scale: Annotated[
        float, Between(0, 10, "How much of the contrast that this adds is taken back.", step=0.01)
    ] = 0.0,
) -> Model:
    """Guide away from what a transformer predicts without some of its blocks of both kinds."""
    for_transformers(model, "SkipLayerGuidanceDiT")
    blocks = SkippedBlocks(_numbers(double_layers), _numbers(single_layers))
    return _away_from(model, blocks, scale, start_percent, end_percent, rescaling_scale)


@node("SkipLayerGuidanceDiTSimple", category="advanced/guidance", stage="experimental")
def skip_layers_of_negative(
    model: Model,
    double_layers: Blocks = "7, 8, 9",
    single_layers: Blocks = "7, 8, 9",
    start_percent: Share = 0.0,
    end_percent: Share = 1.0,
) -> Model:
    """Leave some of a transformer's blocks out under the negative prompt, which takes no further pass."""
    for_transformers(model, "SkipLayerGuidanceDiTSimple")
    blocks = SkippedBlocks(_numbers(double_layers), _numbers(single_layers))
    if not blocks.double and not blocks.single:
        return model
    return guided_by(model, SkipLayersOfNegative(blocks, *_span(model, start_percent, end_percent)))


def _away_from(model: Model, blocks: SkippedBlocks, scale: float, start: float, end: float, rescaling: float) -> Model:
    if not scale or (not blocks.double and not blocks.single):
        return model
    return guided_by(model, SkipLayers(blocks, scale, *_span(model, start, end), rescaling))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(sorted({int(number) for number in re.findall(r"[0-9]+", text)}))


def _span(model: Model, start: float, end: float) -> tuple[float, float]:
    """The lowest and the highest noise level between two shares of the sampling."""
    from nodes.denoiser import sampling_of

    sampling = sampling_of(model)
    return sampling.percent_to_sigma(end), sampling.percent_to_sigma(start)
