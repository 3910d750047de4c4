"""Mix networks of one family, weight by weight: as references, computed in float32 when the mixture is read."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import Field

from graph.literals import Widget
from graph.node import node
from nodes.adapter_names import canonical_shapes, unet_family
from nodes.t5_layout import NORM
from nodes.text_layout import NORM as CLIP_NORM
from nodes.text_references import refuse_absent
from nodes.values import Clip, Model, Weights
from nodes.weight_patches import MergePatch, Part, patched
from nodes.weight_places import Shapes

Ratio = Annotated[
    float,
    Field(ge=0, le=1, description="How much the first counts: 1 is the first alone, 0 the second."),
    Widget(step=0.01),
]
Multiplier = Annotated[
    float, Field(ge=-10, le=10, description="What the difference is multiplied with."), Widget(step=0.01)
]
Shares = Sequence[tuple[str, float, float]]
"""How much the first and the second count, by the start of a weight's name in the original layout."""


class UnlikeNetworks(ValueError):
    """Two networks of different families cannot be mixed."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(
            f"{first} and {second} cannot be mixed, as their weights mean different things; choose two of one family "
            "and size"
        )


@node("ModelMergeSimple", category="advanced/model_merging")
def merge_models(model1: Model, model2: Model, ratio: Ratio = 1.0) -> Model:
    """A mixture of two models: model1·ratio + model2·(1 − ratio)."""
    return merged(model1, model2, mixture(("", ratio)))


@node("ModelMergeBlocks", category="advanced/model_merging")
def merge_blocks(model1: Model, model2: Model, input: Ratio = 1.0, middle: Ratio = 1.0, out: Ratio = 1.0) -> Model:
    """A mixture of two models with a ratio for each half and the middle; what comes before goes by `input`."""
    return merged(model1, model2, mixture(("input", input), ("middle", middle), ("out", out)))


@node("ModelMergeSubtract", category="advanced/model_merging")
def subtract_models(model1: Model, model2: Model, multiplier: Multiplier = 1.0) -> Model:
    """What model1 has learned beyond model2, to be added to another: (model1 − model2)·multiplier."""
    return merged(model1, model2, [("", multiplier, -multiplier)])


@node("ModelMergeAdd", category="advanced/model_merging")
def add_models(model1: Model, model2: Model) -> Model:
    """The sum of two models, one of which is a difference."""
    return merged(model1, model2, [("", 1.0, 1.0)])


@node("CLIPMergeSimple", category="advanced/model_merging")
def merge_clips(clip1: Clip, clip2: Clip, ratio: Ratio = 1.0) -> Clip:
    """A mixture of two text encoders: clip1·ratio + clip2·(1 − ratio)."""
    return _merged_clip(clip1, clip2, mixture(("", ratio)))


@node("CLIPMergeSubtract", category="advanced/model_merging")
def subtract_clips(clip1: Clip, clip2: Clip, multiplier: Multiplier = 1.0) -> Clip:
    """What clip1 has learned beyond clip2: (clip1 − clip2)·multiplier."""
    return _merged_clip(clip1, clip2, [("", multiplier, -multiplier)])


@node("CLIPMergeAdd", category="advanced/model_merging")
def add_clips(clip1: Clip, clip2: Clip) -> Clip:
    """The sum of two text encoders, one of which is a difference."""
    return _merged_clip(clip1, clip2, [("", 1.0, 1.0)])


def mixture(*ratios: tuple[str, float]) -> Shares:
    """Shares that add up to one, by the ratio of the first."""
    return [(start, ratio, 1 - ratio) for start, ratio in ratios]


def merged(model1: Model, model2: Model, shares: Shares) -> Model:
    """The first model with the second mixed in. Raises UnlikeNetworks."""
    weights = (model1.weights, model2.weights)
    shapes = [canonical_shapes(each, "U-Net") for each in weights]
    families = [unet_family(each) or "unknown family" for each in shapes]
    if families[0] != families[1] or (model1.architecture != "U-Net" and _unlike(*shapes)):
        first, second = (f"{each.name!r} ({family})" for each, family in zip(weights, families, strict=True))
        raise UnlikeNetworks(first, second)
    return replace(model1, weights=_mixed(*weights, shares))


def _unlike(shapes: Shapes, others: Shapes) -> bool:
    """Whether weights of one name differ in shape, but for positions, of which a network may know more or fewer."""
    return any(others.get(name, shape) != shape for name, shape in shapes.items() if not name.startswith("pos_embed."))


def _merged_clip(clip1: Clip, clip2: Clip, shares: Shares) -> Clip:
    """The first text encoder with the second mixed in, and so those beside them.

    Raises UnlikeNetworks, and ModelError where a model's file holds none.
    """
    refuse_absent(clip1)
    refuse_absent(clip2)
    firsts, seconds = (clip.encoders for clip in (clip1, clip2))
    widths = [[_width(each, "only text encoder") for each in clips] for clips in (firsts, seconds)]
    if widths[0] != widths[1]:
        told = (
            f"{clip.weights.name!r} ({' and '.join(f'{width} wide' for width in found)})"
            for clip, found in zip((clip1, clip2), widths, strict=True)
        )
        raise UnlikeNetworks(*told)
    merged = [
        replace(first, weights=_mixed(first.weights, second.weights, shares))
        for first, second in zip(firsts, seconds, strict=True)
    ]
    return replace(merged[0], further=tuple(merged[1:]))


def _width(clip: Clip, part: Part) -> int:
    shapes = canonical_shapes(clip.weights, part)
    return shapes[NORM if clip.tower == "T5" else CLIP_NORM][0]


def _mixed(weights: Weights, other: Weights, shares: Shares) -> Weights:
    """The reference itself where nothing of the other counts."""
    if all((own, others) == (1.0, 0.0) for _, own, others in shares):
        return weights
    return patched(weights, MergePatch(other, tuple(shares)))
