"""The network of the judge: a small classifier that says what every attribute of a picture is."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from nodes.embedded.training.vocabulary import SIZES

SIDE = 128
WIDTHS = (3, 16, 32, 64, 96, 128)
TEMPERATURE = 3.0
"""What logits are divided by in the picture tower: a sure classifier has no slope that could lead a sampler.

Of 60 drawings and their captions 59 find one another with 1 to 6; their cosine is 0.996 with 1, 0.994 with 3.
"""


class Classifier(nn.Module):
    """Five convolutions that halve the picture, and one answer per attribute that still knows where things are."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.GroupNorm(b // 8, b), nn.SiLU())
            for a, b in zip(WIDTHS, WIDTHS[1:], strict=False)
        )
        self.answer = nn.Linear(WIDTHS[-1] * (SIDE // 32) ** 2, sum(SIZES))

    def forward(self, pictures: Float[Tensor, "count 3 128 128"]) -> Float[Tensor, "count answers"]:
        """Logits of every value of every attribute, one attribute after another, for pictures from -1 to 1."""
        x = pictures
        for stage in self.stages:
            x = stage(x)
        return self.answer(x.flatten(1))


class PictureTower(nn.Module):
    """The classifier with the directions in which the text encoder says the same: pictures beside texts, as in CLIP."""

    directions: Float[Tensor, "answers width"]

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.classifier = Classifier()
        self.register_buffer("directions", torch.zeros(sum(SIZES), width))

    def pictures(self, pictures: Float[Tensor, "count 3 height width"]) -> Float[Tensor, "count answers"]:
        """How probable each value is, of length 1, for pictures from -1 to 1 of any size. What is absent says nothing.

        A value weighs as much as the text encoder's direction for it is long.
        """
        parts = self.classifier(resized(pictures)).split(SIZES, dim=1)
        probable = torch.cat([(part / TEMPERATURE).softmax(1) for part in parts], dim=1)
        return F.normalize(probable * self._lengths() * self._said(), dim=1)

    def texts(self, states: Float[Tensor, "count width"]) -> Float[Tensor, "count answers"]:
        """How much of each value's direction is in the state of a text, of length 1."""
        return F.normalize(states @ self.directions.T / self._lengths() * self._said(), dim=1)

    def _lengths(self) -> Float[Tensor, " answers"]:
        return self.directions.square().sum(1).sqrt()

    def _said(self) -> Float[Tensor, " answers"]:
        """0 for the first value of every attribute, which is that there is none; 1 for the others."""
        said = torch.ones(sum(SIZES), device=self.directions.device)
        said[[sum(SIZES[:at]) for at in range(len(SIZES))]] = 0.0
        return said


def resized(pictures: Float[Tensor, "count 3 height width"]) -> Float[Tensor, "count 3 128 128"]:
    if pictures.shape[-2:] == (SIDE, SIDE):
        return pictures
    return F.interpolate(pictures, (SIDE, SIDE), mode="bilinear", antialias=True)
