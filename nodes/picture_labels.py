"""What an unCLIP network is told of pictures: noised embeddings, and the level of the noise."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch import device as Device
from torch.nn import Module

from nodes.maths.noise_augmentation import augmented, noise_level
from nodes.model_errors import ModelError
from nodes.models import ModelPool
from nodes.open_weights import OpenWeights
from nodes.picture_prompts import PicturePrompt
from nodes.precision import Precision
from nodes.safetensors_header import AGAIN
from nodes.values import Conditioning, Model, Weights
from nodes.weight_files import read_header

PRECISION = Precision("fp32", False, "two vectors")
MERGED = 0.05
"""The noise on the sum of several pictures."""
SEED_OFFSET = 10
"""So far below the seed of the sampling is that of this noise."""
MASK = 2**64 - 1


def labelled(models: ModelPool, model: Model, conditioning: Conditioning, seed: int) -> Conditioning:
    """The prompts with what an unCLIP network is told of their pictures; zeros for those without any."""
    module = models.unet(model)
    width: int = module.get_submodule("class_embedding.linear_1").get_parameter("weight").shape[1]
    statistics = _statistics(models, model, width // 2)
    prompts = (
        replace(prompt, label=_label(prompt.pictures, statistics, width, (seed - SEED_OFFSET) & MASK))
        for prompt in conditioning.prompts
    )
    return Conditioning(tuple(prompts))


class Statistics(Module):
    """The mean and the spread of CLIP's embeddings of pictures."""

    def __init__(self, mean: Tensor, spread: Tensor) -> None:
        super().__init__()
        self.mean = torch.nn.Buffer(mean)
        self.spread = torch.nn.Buffer(spread)


def _label(
    pictures: tuple[PicturePrompt, ...], statistics: Statistics, width: int, seed: int
) -> Float[Tensor, "1 {width}"]:
    mean, spread = statistics.mean, statistics.spread
    each = [
        augmented(embedding[None], mean, spread, noise_level(picture.noise_augmentation), seed) * picture.strength
        for picture in pictures
        for embedding in _fitting(picture, width // 2)
    ]
    if len(each) > 1:
        return augmented(torch.stack(each).sum(0)[:, : width // 2], mean, spread, noise_level(MERGED), seed)
    return each[0] if each else torch.zeros(1, width)


def _fitting(picture: PicturePrompt, wanted: int) -> Float[Tensor, "batch {wanted}"]:
    found = picture.image_embeds.shape[1]
    if found != wanted:
        raise ValueError(
            f"the picture was encoded into {found} numbers, where the model is told {wanted}; "
            "encode it with the CLIP_VISION of the model's own checkpoint"
        )
    return picture.image_embeds


def _statistics(models: ModelPool, model: Model, width: int) -> Statistics:
    if (weights := model.picture_statistics) is None:
        return Statistics(torch.zeros(1, width), torch.ones(1, width))

    def load(device: Device) -> Module:
        return _read(weights, width)

    found = models.network(weights, "picture statistics", PRECISION, load)
    assert isinstance(found, Statistics)
    return found


def _read(weights: Weights, width: int) -> Statistics:
    names = [f"{weights.part}{name}" for name in ("data_mean", "data_std")]
    header = read_header(weights.path)
    for name in names:
        shape = header[name].shape if name in header else ()
        if shape not in ((width,), (1, width)):
            found = f"is {list(shape)} instead of [1, {width}]" if name in header else "is missing"
            raise ModelError(weights.path, f"{name} {found}", AGAIN)
    files = OpenWeights()
    mean, spread = (files.tensor(weights.path, name).float().reshape(1, width) for name in names)
    return Statistics(mean, spread)
