"""The U-Net: learns the velocity of noised latents from what their captions say."""

import random
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from . import sheets, text_encoder, tokenizer
from .album import Album
from .captions import describe
from .diffusion import noised, predict, signal
from .painter import Painter
from .progress import Learner, Meter, rate, read, set_seed
from .ranks import launch
from .tokenizer import LENGTH, SHORT
from .vocabulary import Attributes

CONFIG: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (48, 96, 144),
    "layers_per_block": 1,
    "cross_attention_dim": 128,
    "attention_head_dim": 4,
    "norm_num_groups": 16,
}

PAIRS, LATE_PAIRS = 1.7, 3.5
"""Two objects are the hardest to learn: their pictures come up this much more often, and towards the end this much."""


class Schedule(NamedTuple):
    """How long and how hard, per process."""

    steps: int = 14400
    batch: int = 16
    large_batch: int = 7
    large_from: float = 0.5
    """The part of training after which every fourth batch holds larger pictures."""

    late_from: float = 0.83
    """The part after which two objects come up oftener still."""

    learning_rate: float = 1.6e-3
    sheet_every: int = 1500


class Lesson(NamedTuple):
    """Pictures of one size: their latents, what they show, and how often each is looked at."""

    latents: Float[Tensor, "count 4 height width"]
    attributes: list[Attributes]
    weights: Float[Tensor, " count"]
    late_weights: Float[Tensor, " count"]


def build() -> UNet2DConditionModel:
    return UNet2DConditionModel(**CONFIG)


def lesson(album: Album, folder: Path) -> Lesson:
    latents = np.load(folder / f"{album.name}.latents.npy")
    attributes = album.attributes()
    weights, late = (
        torch.tensor([often if each.object2 else 1.0 for each in attributes]) for often in (PAIRS, LATE_PAIRS)
    )
    return Lesson(torch.tensor(latents).float(), attributes, weights, late)


class Pupil:
    """One process's share of the training: batches from its own random numbers, and the loss on them."""

    def __init__(self, rank: int, first: int, seed: int, schedule: Schedule, out: Path) -> None:
        self.schedule = schedule
        self.rng = random.Random(f"{seed} {rank} {first}")
        self.generator = torch.Generator().manual_seed(self.rng.randrange(2**40))
        self.tokenizer: CLIPTokenizer = tokenizer.load(out / "tokenizer")
        self.text: CLIPTextModel = text_encoder.load(out / "text_encoder.pt", self.tokenizer)
        self.signal = signal()

    @torch.no_grad()
    def listen(self, attributes: list[Attributes], length: int) -> Float[Tensor, "count length 128"]:
        """Text states of new captions, one in ten of them empty."""
        texts = [describe(each, self.rng).text if self.rng.random() > 0.1 else "" for each in attributes]
        return text_encoder.states(self.text, tokenizer.tokens(self.tokenizer, texts, length))

    def loss(self, unet: UNet2DConditionModel, step: int, small: Lesson, large: Lesson) -> Tensor:
        """The squared error of the velocity; now and then with larger pictures or with prompts of full length."""
        schedule = self.schedule
        is_large = step >= schedule.large_from * schedule.steps and step % 4 == 3
        source, count = (large, schedule.large_batch) if is_large else (small, schedule.batch)
        weights = source.late_weights if step >= schedule.late_from * schedule.steps else source.weights
        chosen = torch.multinomial(weights, count, generator=self.generator)
        text = self.listen([source.attributes[int(i)] for i in chosen], LENGTH if step % 12 == 11 else SHORT)
        clean = source.latents[chosen]
        noise = torch.randn(clean.shape, generator=self.generator)
        times, alpha_bar = self._times(count)
        x, velocity = noised(clean, noise, alpha_bar)
        with torch.autocast("cpu", torch.bfloat16):
            made = predict(unet, x, times, text)
        return F.mse_loss(made.float(), velocity)

    def _times(self, count: int) -> tuple[Tensor, Tensor]:
        """Uniform timesteps; three in a hundred are pure noise, which the schedule itself never quite reaches."""
        times = torch.randint(0, 1000, (count,), generator=self.generator)
        pure = torch.rand(count, generator=self.generator) < 0.03
        times = torch.where(pure, 960 + times % 40, times)
        return times, torch.where(pure, 0.0, self.signal[times])


def _train(rank: int, albums: tuple[Album, Album], out: Path, schedule: Schedule, seed: int) -> None:
    set_seed(seed)
    unet = build()
    unet.set_attn_processor(AttnProcessor())
    learner = Learner(unet, schedule.learning_rate, out / "unet.pt", decay=0.999, weight_decay=0.01, together=True)
    first = learner.resume()
    pupil = Pupil(rank, first, seed, schedule, out)
    small, large = (lesson(album, out) for album in albums)
    meter = Meter("unet", first, schedule.steps)
    for step in range(first, schedule.steps):
        loss = pupil.loss(unet, step, small, large)
        learner.learn(loss, step, rate(step, schedule.steps, hold=0.5))
        if rank == 0:
            meter.count(step, loss)
            _keep(learner, step + 1, out, schedule)


def _keep(learner: Learner, done: int, out: Path, schedule: Schedule) -> None:
    """The weights every five hundred steps, a contact sheet now and then."""
    if done % 500 == 0 or done == schedule.steps:
        learner.save(done)
    if done % schedule.sheet_every == 0:
        sheets.save(Painter.load(out).paint, out / f"sheet_{done}.png")


def train(albums: tuple[Album, Album], out: Path, schedule: Schedule, seed: int) -> None:
    """Train on the latents of a small and a large album; the averaged weights land in `out/unet.pt`."""
    launch(_train, albums, out, schedule, seed)


def load_average(path: Path) -> UNet2DConditionModel:
    """The averaged weights of a checkpoint, ready to use."""
    unet = build()
    unet.load_state_dict(read(path)["average"])
    return unet.eval()
