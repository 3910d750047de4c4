"""Boxes around what a picture shows: found by a detector, picked by label and score, drawn, and made masks."""

from dataclasses import dataclass, replace
from typing import Annotated, NamedTuple

from pydantic import Field

from graph.literals import Widget
from graph.node import Many, node
from graph.values import INJECTED, Value
from nodes.lengths import LONGEST
from nodes.models import ModelPool
from nodes.values import Image, Mask
from nodes.vision.answers import lines_of
from nodes.vision.models import VisionModel, require

Score = Annotated[float, Field(ge=0, le=1, description="What is less certain is left out."), Widget(step=0.01)]
Label = Annotated[str, Field(description="Only this label; several stand on lines of their own; nothing: all.")]


@dataclass(frozen=True, slots=True)
class Box:
    """One thing found: what, how certainly (0…1), its edges in pixels, and in which picture of the batch."""

    label: str
    score: float
    left: float
    top: float
    right: float
    bottom: float
    picture: int = 0


@dataclass(frozen=True, slots=True)
class Boxes(Value, kind="BOXES"):
    """What was found in a batch of `pictures` pictures of one size, the most certain first within each picture."""

    found: tuple[Box, ...]
    width: int
    height: int
    pictures: int = 1


class BoxList(NamedTuple):
    """The labels and scores of all boxes, in order, and how many there are."""

    labels: Many[str]
    scores: Many[float]
    number: int


@node("ObjectDetection", category="vision", title="Object Detection", lane="device")
def detect(
    vision_model: VisionModel,
    image: Image,
    threshold: Score = 0.5,
    labels: Annotated[
        str,
        Field(description="What to look for, one thing on each line: for zero-shot detectors, which know no labels."),
        Widget(multiline=True),
    ] = "",
    models: ModelPool = INJECTED,
) -> Boxes:
    """Boxes around the things that a detector knows, or that it is told of."""
    require(vision_model, "object detection", "zero-shot object detection")
    import torch

    from nodes.vision.finding import detected, detected_by_text

    by_text = vision_model.task == "zero-shot object detection"
    texts = lines_of(labels, "the list of labels") if by_text else []
    found: list[Box] = []
    for at, pixels in enumerate(torch.split(image.rgb, 1)):
        if by_text:
            boxes = detected_by_text(models, vision_model, pixels, texts, threshold)
        else:
            boxes = detected(models, vision_model, pixels, threshold)
        found += [replace(box, picture=at) for box in sorted(boxes, key=lambda box: -box.score)]
    pictures, height, width = image.pixels.shape[:3]
    return Boxes(tuple(found), width, height, pictures)


@node("PickBoxes", category="vision", title="Pick Boxes")
def pick_boxes(
    boxes: Boxes,
    label: Label = "",
    min_score: Score = 0.0,
    most: Annotated[int, Field(ge=0, le=100_000, description="So many of each picture at most; 0: any number.")] = 0,
) -> Boxes:
    """The boxes of some labels that are certain enough."""
    wanted = {line.strip() for line in label.splitlines() if line.strip()}
    kept = [box for box in boxes.found if box.score >= min_score and (not wanted or box.label in wanted)]
    seen = [0] * boxes.pictures
    picked: list[Box] = []
    for box in kept:
        seen[box.picture] += 1
        if not most or seen[box.picture] <= most:
            picked.append(box)
    return replace(boxes, found=tuple(picked))


@node("BoxesToMask", category="vision", title="Boxes to Mask")
def boxes_to_mask(
    boxes: Boxes,
    grow: Annotated[
        int, Field(ge=-LONGEST, le=LONGEST, description="So many pixels on every side; negative: smaller.")
    ] = 0,
) -> Mask:
    """A mask for each picture: 1 inside its boxes. A pixel belongs to a box that reaches its middle."""
    import torch

    mask = torch.zeros(boxes.pictures, boxes.height, boxes.width)
    for box in boxes.found:
        left, top = (max(0, round(edge) - grow) for edge in (box.left, box.top))
        right, bottom = (max(0, round(edge) + grow) for edge in (box.right, box.bottom))
        mask[box.picture, top:bottom, left:right] = 1.0
    return Mask(mask)


@node("ListBoxes", category="vision", title="List Boxes", cutoff=True)
def list_boxes(boxes: Boxes) -> BoxList:
    """What was found, and how many."""
    return BoxList([box.label for box in boxes.found], [box.score for box in boxes.found], len(boxes.found))


@node("DrawBoxes", category="vision", title="Draw Boxes")
def draw_boxes(
    image: Image,
    boxes: Boxes,
    thickness: Annotated[int, Field(ge=1, le=100, description="Pixels.")] = 2,
) -> Image:
    """The pictures with their boxes drawn on them, each label in a colour of its own."""
    from nodes.vision.finding import drawn

    pictures, height, width = image.pixels.shape[:3]
    if (width, height, pictures) != (boxes.width, boxes.height, boxes.pictures):
        raise ValueError(
            f"the boxes were found in {boxes.pictures} picture(s) of {boxes.width}x{boxes.height}, "
            f"but these are {pictures} of {width}x{height}; draw them on the pictures they were found in"
        )
    return Image(drawn(image.rgb, boxes, thickness))
