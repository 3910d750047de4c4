"""How well pictures fit a text, by a network that was trained on pairs of both, Radford et al. (2021)."""

from typing import TYPE_CHECKING, Annotated, NamedTuple, cast

from pydantic import Field

from graph.literals import Widget
from graph.node import Many, node
from graph.values import INJECTED
from nodes.models import ModelPool
from nodes.values import Image
from nodes.vision.answers import Named, lines_of, named
from nodes.vision.models import VisionModel, require

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

Text = Annotated[str, Field(description="What the pictures are compared with."), Widget(multiline=True)]
Labels = Annotated[str, Field(description="One label or sentence on each line."), Widget(multiline=True)]


class Ranked(NamedTuple):
    """The best pictures, best first; their scores; and where they were in the batch, from 0."""

    images: Image
    scores: Many[float]
    order: Many[int]


@node("ImageTextSimilarity", category="vision", title="Image–Text Similarity", lane="device")
def similarity(vision_model: VisionModel, image: Image, text: Text = "", models: ModelPool = INJECTED) -> Many[float]:
    """How well each picture of a batch fits a text: the cosine of their directions, -1 to 1."""
    return cast("list[float]", _cosines(models, vision_model, image, [text])[:, 0].tolist())  # pyright: ignore[reportUnknownMemberType]  # torch types it bare


@node("RankByPrompt", category="vision", title="Rank by Prompt", lane="device")
def rank_by_prompt(
    vision_model: VisionModel,
    image: Image,
    text: Text = "",
    best: Annotated[int, Field(ge=0, le=4096, description="How many to keep; 0 keeps all.")] = 1,
    models: ModelPool = INJECTED,
) -> Ranked:
    """The pictures of a batch that fit a text best, best first."""
    scores = cast("list[float]", _cosines(models, vision_model, image, [text])[:, 0].tolist())  # pyright: ignore[reportUnknownMemberType]  # torch types it bare
    order = sorted(range(len(scores)), key=lambda at: -scores[at])[: best or None]
    return Ranked(Image(image.pixels[order]), [scores[at] for at in order], order)


@node("ZeroShotClassification", category="vision", title="Zero-Shot Classification", lane="device")
def classify_zero_shot(
    vision_model: VisionModel, image: Image, labels: Labels = "", models: ModelPool = INJECTED
) -> Named:
    """Which of several texts fits each picture best, with a probability for each."""
    from nodes.vision.seeing import scale

    texts = lines_of(labels, "the list of labels")
    cosines = _cosines(models, vision_model, image, texts)
    shares = (cosines * scale(models, vision_model)).softmax(1)
    return named(texts, cast("list[list[float]]", shares.tolist()))  # pyright: ignore[reportUnknownMemberType]  # torch types it bare


def _cosines(
    models: ModelPool, model: VisionModel, image: Image, texts: list[str]
) -> "Float[Tensor, 'pictures texts']":
    require(model, "text-image similarity")
    import torch

    from nodes.vision.seeing import picture_directions, text_directions

    with torch.no_grad():
        seen = [picture_directions(models, model, part) for part in torch.split(image.rgb.movedim(-1, 1), 1)]
        return (torch.cat(seen) @ text_directions(models, model, texts).T).cpu()
