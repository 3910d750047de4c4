"""The judge: a small classifier that names every attribute of a picture.

It learns from drawn pictures alone: other ones than the model's, in other handwriting, and with the pairs that the
model never saw. What it says of generated pictures can be believed as far as it is right about drawn ones.
"""

from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from ..classifier import SIDE, Classifier, resized
from . import album
from .album import Album
from .autoencoder import to_tensor
from .progress import Learner, Meter, rate, set_seed
from .vocabulary import SIZES, Attributes, encode

files: Any = safetensors.torch


class Judge(Classifier):
    """The network, asked for answers instead of logits."""

    @torch.no_grad()
    def name(self, pictures: UInt8[np.ndarray, "count height width 3"]) -> Int[np.ndarray, "count slots"]:
        """The number of every attribute's likeliest value, as `vocabulary.encode` counts them."""
        answers = [
            torch.stack([part.argmax(1) for part in self(resized(to_tensor(batch))).split(SIZES, dim=1)], dim=1)
            for batch in np.array_split(pictures, max(1, len(pictures) // 50))
        ]
        return torch.cat(answers).numpy()


def _varied(pictures: Float[Tensor, "count 3 128 128"], generator: torch.Generator) -> Float[Tensor, "count 3 128 128"]:
    """Moved, turned, blurred, stained, noisy: the judge should mind what is shown and not how cleanly."""
    count = len(pictures)

    def spread(width: float) -> Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * width

    angle, size = spread(0.1), 1 + spread(0.08)
    rows = [size * angle.cos(), -size * angle.sin(), spread(0.05), size * angle.sin(), size * angle.cos(), spread(0.05)]
    grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(pictures.shape), align_corners=False)
    moved = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    soft = F.avg_pool2d(F.avg_pool2d(moved, 3, 1, 1), 3, 1, 1)
    moved = moved.lerp(soft, torch.rand((count, 1, 1, 1), generator=generator))
    stains = F.interpolate(torch.randn((count, 3, 12, 12), generator=generator), (SIDE, SIDE), mode="bilinear")
    contrast = 1 + spread(0.15).view(-1, 1, 1, 1)
    return contrast * moved + 0.1 * stains + 0.05 * torch.randn(moved.shape, generator=generator)


def train(pictures: Album, folder: Path, path: Path, seed: int, rounds: int = 8) -> None:
    """Train on an album and write the judge in half precision."""
    set_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    data = album.load(album.build(pictures, folder))
    answers = torch.tensor([encode(attributes) for attributes in pictures.attributes()])
    model, batch = Judge(), 64
    steps = rounds * len(data) // batch
    learner, meter = Learner(model, 3e-3, weight_decay=0.02), Meter("judge", 0, steps)
    for step in range(steps):
        chosen = torch.randint(0, len(data), (batch,), generator=generator)
        made = model(_varied(to_tensor(data[chosen.numpy()]), generator)).split(SIZES, dim=1)
        loss = torch.stack([F.cross_entropy(part, answers[chosen, i]) for i, part in enumerate(made)]).sum()
        learner.learn(loss, step, rate(step, steps, hold=0.2))
        meter.count(step, loss)
    files.save_file({name: value.half().contiguous() for name, value in model.state_dict().items()}, path)
    path.chmod(0o644)


def load(path: Path) -> Judge:
    """The shipped judge."""
    model = Judge()
    model.load_state_dict({name: value.float() for name, value in files.load_file(path).items()})
    return model.eval()


def correct(answers: Int[np.ndarray, "count slots"], wanted: list[Attributes]) -> Int[np.ndarray, "count slots"]:
    """Which answers agree; what the caption leaves open is right whatever it is."""
    truth = np.array([encode(attributes) for attributes in wanted])
    return ((answers == truth) | (truth == 0)).astype(np.int64)
