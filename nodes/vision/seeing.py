"""What networks say of pictures, as tensors: logits of labels, and texts and pictures in one space.

Pictures may come as planes from 0 to 1 that carry a gradient: then everything on the way is differentiable.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image as Pillow
from torch import Tensor

from nodes.models import ModelPool
from nodes.vision.loading import image_processor, network, tokenizer
from nodes.vision.models import VisionModel

Planes = Float[Tensor, "batch 3 height width"]
Pixels = Float[Tensor, "batch height width 3"]
Directions = Float[Tensor, "count width"]


def pillow(pixels: Pixels) -> list[Pillow.Image]:
    """Pictures as processors take them: to the nearest of 256 values."""
    array = (pixels.detach().cpu() * 255).round().clamp(0, 255).to(torch.uint8).numpy()
    return [Pillow.fromarray(each) for each in array]


def inputs(models: ModelPool, model: VisionModel, pixels: Pixels) -> dict[str, Tensor]:
    """What the network is to be called with, by its own processor."""
    made = image_processor(model)(images=pillow(pixels), return_tensors="pt")
    return {name: value.to(models.device) for name, value in made.items() if isinstance(value, Tensor)}


def prepared(model: VisionModel, planes: Planes) -> Planes:
    """Pictures as the processor prepares them, but differentiable: resized, cut to the middle and normalised.

    Bicubic or bilinear with antialiasing, as the processor says; without its rounding to 256 values.
    """
    settings: Any = image_processor(model)
    if getattr(settings, "do_resize", True):
        planes = F.interpolate(
            planes,
            _size(settings.size, planes.shape[-2:]),
            mode="bicubic" if int(settings.resample) == Pillow.Resampling.BICUBIC else "bilinear",
            antialias=True,
        )
    if getattr(settings, "do_center_crop", False):
        height, width = settings.crop_size["height"], settings.crop_size["width"]
        top, left = (planes.shape[-2] - height) // 2, (planes.shape[-1] - width) // 2
        planes = planes[..., top : top + height, left : left + width]
    if getattr(settings, "do_normalize", True):
        mean, spread = (
            torch.tensor(cast("list[float]", values), device=planes.device)[:, None, None]
            for values in (settings.image_mean, settings.image_std)
        )
        planes = (planes - mean) / spread
    return planes


def _size(wanted: Any, found: Sequence[int]) -> list[int]:
    """Height and width after resizing: both as stated, or the shorter side, the longer in proportion."""
    if wanted.get("height"):
        return [wanted["height"], wanted["width"]]
    shorter = wanted["shortest_edge"]
    return [max(shorter, int(shorter * side / min(found))) for side in found]


def labels(models: ModelPool, model: VisionModel) -> list[str]:
    """The names of what a classifier tells apart, in the order of its logits."""
    if model.slot:
        from nodes.embedded.training.vocabulary import SLOTS

        return ["none", *SLOTS[model.slot]]
    names: dict[int, str] = network(models, model).config.id2label
    return [names[at] for at in sorted(names)]


def logits(models: ModelPool, model: VisionModel, planes: Planes, exact: bool = True) -> Float[Tensor, "batch labels"]:
    """What a classifier says of pictures.

    Args:
        exact: prepare them with the network's own processor, which has no gradient.
    """
    module = network(models, model)
    if model.slot:
        from nodes.embedded.classifier import resized
        from nodes.embedded.training.vocabulary import SIZES, SLOTS

        answers: Tensor = module.classifier(resized(planes.to(models.device) * 2.0 - 1.0))
        return torch.split(answers, list(SIZES), dim=1)[list(SLOTS).index(model.slot)]
    return module(pixel_values=_pixel_values(models, model, planes, exact)).logits


def picture_directions(models: ModelPool, model: VisionModel, planes: Planes, exact: bool = True) -> Directions:
    """Pictures in the space they share with texts, each of length 1."""
    module = network(models, model)
    if model.text is not None:
        return module.pictures(planes.to(models.device) * 2.0 - 1.0)
    return F.normalize(_pooled(module.get_image_features(_pixel_values(models, model, planes, exact))), dim=-1)


def text_directions(models: ModelPool, model: VisionModel, texts: Sequence[str]) -> Directions:
    """Texts in the space they share with pictures, each of length 1; what is too long is cut."""
    module = network(models, model)
    with torch.no_grad():
        if model.text is not None:
            from nodes.text_encoding import encode_prompt

            pooled = [encode_prompt(models, model.text, text).prompts[0].pooled for text in texts]
            return module.texts(torch.cat([state for state in pooled if state is not None]).to(models.device))
        cut = tokenizer(model)(list(texts), padding="max_length" if _siglip(model) else True, truncation=True)
        given = {name: torch.tensor(values, device=models.device) for name, values in cut.items()}
        return F.normalize(_pooled(module.get_text_features(**given)), dim=-1)


def scale(models: ModelPool, model: VisionModel) -> float:
    """What cosines are multiplied by before they become probabilities, as it was learnt."""
    learnt = getattr(network(models, model), "logit_scale", None)
    return float(learnt.exp()) if isinstance(learnt, Tensor) else 20.0


def _siglip(model: VisionModel) -> bool:
    return model.architecture.startswith("Siglip")


def _pixel_values(models: ModelPool, model: VisionModel, planes: Planes, exact: bool) -> Planes:
    if exact:
        return inputs(models, model, planes.movedim(1, -1))["pixel_values"]
    return prepared(model, planes.to(models.device))


def _pooled(found: Any) -> Tensor:
    """The projected state: transformers 5 wraps it."""
    return found if isinstance(found, Tensor) else found.pooler_output
