"""Guidance by what a network sees: a score of the picture to come steers the sampler, Dhariwal and Nichol (2021)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from graph.literals import Widget
from graph.node import node
from graph.values import INJECTED
from nodes.guidance import guided_by
from nodes.models import ModelPool
from nodes.rules import Evaluation, GuidanceRule
from nodes.values import FlowLevels, Model, Scale, Vae
from nodes.vision.models import VisionModel, require

if TYPE_CHECKING:
    from nodes.rules import Latents

Strength = Annotated[
    float,
    Field(ge=-1000, le=1000, description="1: as much as probability theory says; below 0 it leads away."),
    Widget(step=0.1),
]
Share = Annotated[
    float, Field(ge=0, le=1, description="Of the sampling: 0 is its start, 1 its end."), Widget(step=0.01)
]
ThroughNetwork = Annotated[
    bool, Field(description="Follow the gradient through the denoiser too: one more evaluation for each step.")
]


@dataclass(frozen=True)
class SeenAs(GuidanceRule):
    """The gradient of a network's score of the decoded prediction, between two noise levels.

    The score is the log-probability of a classifier's `label`, or the scaled cosine of the directions of picture and
    `text`.
    """

    vision: VisionModel
    vae: Vae
    latent_scale: Scale
    latent_shift: Scale
    flow: bool
    label: int | None
    text: str
    strength: float
    highest: float
    lowest: float
    through_network: bool

    def after(self, found: Evaluation, guided: "Latents") -> "Latents":
        from nodes.vision.steering import steered

        if not self.lowest <= found.sigma <= self.highest or not self.strength:
            return guided
        return steered(self, found, guided)


@node("ClassifierGuidance", category="advanced/guidance", title="Classifier Guidance", lane="device")
def classifier_guidance(
    model: Model,
    vae: Vae,
    vision_model: VisionModel,
    label: Annotated[str, Field(description="What the classifier is to see, by one of its own labels.")] = "",
    strength: Strength = 1.0,
    start: Share = 0.0,
    end: Share = 1.0,
    through_network: ThroughNetwork = False,
    models: ModelPool = INJECTED,
) -> Model:
    """Let a classifier steer the sampler towards what it takes for a label (Dhariwal and Nichol 2021).

    It looks at the predicted picture, so it needs no training on noise.
    """
    require(vision_model, "image classification")
    from nodes.vision.seeing import labels

    names = labels(models, vision_model)
    if label not in names:
        raise ValueError(
            f"{vision_model.weights.name!r} has no label {label!r}; it has {', '.join(names[:20])}"
            f"{f' and {len(names) - 20} more' if len(names) > 20 else ''}"
        )
    return _steered(model, vae, vision_model, names.index(label), "", strength, start, end, through_network)


@node("CLIPGuidance", category="advanced/guidance", title="CLIP Guidance", lane="device")
def clip_guidance(
    model: Model,
    vae: Vae,
    vision_model: VisionModel,
    text: Annotated[str, Field(description="What the picture is to look like."), Widget(multiline=True)] = "",
    strength: Strength = 1.0,
    start: Share = 0.0,
    end: Share = 1.0,
    through_network: ThroughNetwork = False,
) -> Model:
    """Let the similarity of picture and text steer the sampler."""
    require(vision_model, "text-image similarity")
    return _steered(model, vae, vision_model, None, text, strength, start, end, through_network)


def _steered(
    model: Model,
    vae: Vae,
    vision: VisionModel,
    label: int | None,
    text: str,
    strength: float,
    start: float,
    end: float,
    through_network: bool,
) -> Model:
    from nodes.denoiser import sampling_of

    if start >= end:
        raise ValueError(f"start is {start:g} and end {end:g}, so there is no step between them; start must be less")
    sampling = sampling_of(model)
    rule = SeenAs(
        vision,
        vae,
        latent_scale=model.latent_scale,
        latent_shift=model.latent_shift,
        flow=isinstance(model.levels, FlowLevels),
        label=label,
        text=text,
        strength=strength,
        highest=float(sampling.percent_to_sigma(start)),
        lowest=float(sampling.percent_to_sigma(end)),
        through_network=through_network,
    )
    return guided_by(model, rule)
