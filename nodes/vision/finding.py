"""Where things are in a picture: what detectors and segmenters say, in pixels, and boxes drawn."""

import colorsys
import zlib
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from torch import Tensor

from nodes.models import ModelPool
from nodes.vision.boxes import Box, Boxes
from nodes.vision.loading import image_processor, network, tokenizer
from nodes.vision.models import VisionModel
from nodes.vision.seeing import Pixels, inputs, pillow


def detected(models: ModelPool, model: VisionModel, pixels: Pixels, threshold: float) -> list[Box]:
    """What a detector finds in one picture, as its own processor reads the answer."""
    module, processor = network(models, model), image_processor(model)
    with torch.no_grad():
        output = module(**inputs(models, model, pixels))
    size = torch.tensor([pixels.shape[1:3]], device=models.device)
    (found,) = processor.post_process_object_detection(output, threshold=threshold, target_sizes=size)
    names: dict[int, str] = module.config.id2label
    return [
        _box(names[int(label)], float(score), edges, pixels)
        for label, score, edges in zip(found["labels"], found["scores"], found["boxes"], strict=True)
    ]


def detected_by_text(
    models: ModelPool, model: VisionModel, pixels: Pixels, texts: Sequence[str], threshold: float
) -> list[Box]:
    """What a zero-shot detector finds of some texts in one picture, Minderer et al. (2022)."""
    module = network(models, model)
    words = tokenizer(model)(list(texts), padding="max_length", truncation=True, max_length=_longest(module))
    given = {name: torch.tensor(values, device=models.device) for name, values in words.items()}
    with torch.no_grad():
        output = module(**inputs(models, model, pixels), **given)
    scores, label = cast(Tensor, output.logits)[0].sigmoid().max(-1)
    middle, half = output.pred_boxes[0, :, :2], output.pred_boxes[0, :, 2:] / 2
    height, width = pixels.shape[1:3]
    if model.architecture.startswith("Owlv2"):  # which fills the picture up to a square
        height = width = max(height, width)
    edges = torch.cat((middle - half, middle + half), -1) * torch.tensor([width, height, width, height]).to(half)
    return [
        _box(texts[int(label[at])], float(scores[at]), edges[at], pixels)
        for at in range(len(scores))
        if scores[at] > threshold
    ]


def _longest(module: Any) -> int:
    return int(module.config.text_config.max_position_embeddings)


def _box(label: str, score: float, edges: Tensor, pixels: Pixels) -> Box:
    """Kept within the picture."""
    left, top, right, bottom = (float(edge) for edge in edges)
    height, width = pixels.shape[1:3]
    return Box(
        label,
        score,
        min(max(left, 0.0), width),
        min(max(top, 0.0), height),
        min(max(right, 0.0), width),
        min(max(bottom, 0.0), height),
    )


def segmented(
    models: ModelPool, model: VisionModel, pixels: Pixels, threshold: float, per_object: bool
) -> list[tuple[str, float, Float[Tensor, "height width"]]]:
    """Label, score and mask of every segment of one picture; the score of a whole class is 1."""
    module, processor = network(models, model), image_processor(model)
    with torch.no_grad():
        output = module(**inputs(models, model, pixels))
    names: dict[int, str] = module.config.id2label
    size = [(pixels.shape[1], pixels.shape[2])]
    if per_object and "ForSemantic" not in model.architecture:
        (found,) = processor.post_process_instance_segmentation(output, threshold=threshold, target_sizes=size)
        plan = cast(Tensor, found["segmentation"])
        return [
            (names[each["label_id"]], float(each["score"]), (plan == each["id"]).float().cpu())
            for each in found["segments_info"]
        ]
    (plan,) = processor.post_process_semantic_segmentation(output, target_sizes=size)
    classes = sorted({int(label) for label in plan.unique()})
    return [(names[label], 1.0, (plan == label).float().cpu()) for label in classes if label in names]


def drawn(pixels: Pixels, boxes: Boxes, thickness: int) -> Pixels:
    """Pictures with boxes and their labels on them."""
    pictures: list[Tensor] = []
    size = max(10, min(boxes.width, boxes.height) // 24)
    font = ImageFont.load_default(size)
    for at, picture in enumerate(pillow(pixels)):
        pen = ImageDraw.Draw(picture)
        for box in reversed([box for box in boxes.found if box.picture == at]):
            colour = _colour(box.label)
            pen.rectangle((box.left, box.top, box.right - 1, box.bottom - 1), outline=colour, width=thickness)
            text = f"{box.label} {box.score:.2f}"
            corner = (box.left + thickness + 1, box.top + thickness)
            pen.rectangle(pen.textbbox(corner, text, font=font), fill=colour)
            pen.text(corner, text, fill="black", font=font)
        pictures.append(_tensor(picture))
    return torch.stack(pictures)


def _tensor(picture: Pillow.Image) -> Float[Tensor, "height width 3"]:
    return torch.tensor(np.asarray(picture.convert("RGB"))).float() / 255


def _colour(label: str) -> tuple[int, int, int]:
    """Bright, and the same for the same label everywhere."""
    red, green, blue = colorsys.hsv_to_rgb(zlib.crc32(label.encode()) % 360 / 360, 0.6, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)
