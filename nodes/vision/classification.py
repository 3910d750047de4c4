"""What pictures show, by a classifier."""

from typing import cast

from graph.node import node
from graph.values import INJECTED
from nodes.models import ModelPool
from nodes.values import Image
from nodes.vision.answers import Named, named
from nodes.vision.models import VisionModel, require


@node("ImageClassification", category="vision", title="Image Classification", lane="device")
def classify(vision_model: VisionModel, image: Image, models: ModelPool = INJECTED) -> Named:
    """What each picture shows, by the labels of a classifier, with a probability for each label."""
    require(vision_model, "image classification")
    import torch

    from nodes.vision.seeing import labels, logits

    with torch.no_grad():
        shares = [logits(models, vision_model, part).softmax(1) for part in torch.split(image.rgb.movedim(-1, 1), 1)]
    rows = cast("list[list[float]]", torch.cat(shares).tolist())  # pyright: ignore[reportUnknownMemberType]  # torch types it bare
    return named(labels(models, vision_model), rows)
