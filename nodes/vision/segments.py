"""Parts of pictures: found by a segmenter, and made masks."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from graph.node import Many, node
from graph.values import INJECTED, Value
from nodes.models import ModelPool
from nodes.values import Image, Mask
from nodes.vision.boxes import Label, Score
from nodes.vision.models import VisionModel, require

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Segment:
    """One part: of what, how certainly (0…1), and of which picture of the batch."""

    label: str
    score: float
    picture: int


@dataclass(frozen=True, slots=True)
class Segments(Value, kind="SEGMENTS"):
    """What the parts of `pictures` pictures are, each with its mask of zeros and ones."""

    found: tuple[Segment, ...]
    masks: "Float[Tensor, 'segments height width']"
    pictures: int


@node("ImageSegmentation", category="vision", title="Image Segmentation", lane="device")
def segment(
    vision_model: VisionModel,
    image: Image,
    threshold: Score = 0.5,
    per_object: Annotated[
        bool, Field(description="A mask for each thing, where the network tells them apart; otherwise one per label.")
    ] = True,
    models: ModelPool = INJECTED,
) -> Segments:
    """Which pixels belong to what: by semantic, instance and universal segmentation networks."""
    require(vision_model, "segmentation")
    import torch

    from nodes.vision.finding import segmented

    found: list[Segment] = []
    masks = [torch.zeros(0, *image.pixels.shape[1:3])]
    for at, pixels in enumerate(torch.split(image.rgb, 1)):
        for label, score, mask in segmented(models, vision_model, pixels, threshold, per_object):
            found.append(Segment(label, score, at))
            masks.append(mask[None])
    return Segments(tuple(found), torch.cat(masks), len(image.pixels))


@node("SegmentsToMask", category="vision", title="Segments to Mask")
def segments_to_mask(segments: Segments, label: Label = "", min_score: Score = 0.0) -> Mask:
    """A mask for each picture: 1 where it shows one of the labels certainly enough."""
    import torch

    wanted = {line.strip() for line in label.splitlines() if line.strip()}
    mask = torch.zeros(segments.pictures, *segments.masks.shape[1:])
    for each, area in zip(segments.found, segments.masks, strict=True):
        if each.score >= min_score and (not wanted or each.label in wanted):
            mask[each.picture] = torch.maximum(mask[each.picture], area)
    return Mask(mask)


@node("ListSegments", category="vision", title="List Segments", cutoff=True)
def list_segments(segments: Segments) -> Many[str]:
    """What was found, in order."""
    return [each.label for each in segments.found]
