"""The text encoder: a CLIP text tower taught to say every attribute in a direction of its own.

A small tower trained contrastively, as CLIP is, spends itself on what its picture tower separates most easily: all ten
digits come out nearly the same, and no U-Net can tell them apart. Here every value of every attribute has an orthogonal
direction, and the state at each position is taught to be the sum of what the caption says.
"""

import random
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .captions import Caption, describe
from .pictures import sample
from .progress import Learner, Meter, rate, read, set_seed
from .tokenizer import LENGTH, SHORT, tokens
from .vocabulary import SIZES, SLOTS, Attributes, encode

WIDTH = 128
LOUDNESS = {"layout": 0.9, "object": 1.3, "digit": 1.3, "object2": 1.3}
"""What is hard to paint speaks louder."""

MIX = {"icon": 0.26, "scene": 0.26, "digit": 0.13, "beside": 0.18, "stacked": 0.15, "": 0.02}

States = Float[Tensor, "count length 128"]


class Schedule(NamedTuple):
    """How long and how hard."""

    steps: int = 1800
    batch: int = 64
    learning_rate: float = 1.5e-3


def build(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        projection_dim=WIDTH,
        bos_token_id=cast(int, tokenizer.bos_token_id),
        eos_token_id=cast(int, tokenizer.eos_token_id),
        pad_token_id=cast(int, tokenizer.pad_token_id),
    )
    return CLIPTextModel(config)


def states(model: CLIPTextModel, ids: Int[Tensor, "count length"]) -> States:
    """The last hidden state: what the U-Net's cross-attention sees."""
    return cast(Any, model)(input_ids=ids).last_hidden_state


def directions(seed: int) -> Float[Tensor, "values 128"]:
    """One direction for every value of every attribute and for its absence, all orthogonal, scaled by loudness."""
    generator = torch.Generator().manual_seed(seed)
    square: Tensor = cast(Any, torch.linalg).qr(torch.randn(WIDTH, WIDTH, generator=generator)).Q
    loudness = torch.tensor([LOUDNESS.get(name, 1.0) for name in SLOTS])
    scale = (WIDTH / (loudness**2).sum()).sqrt() * loudness
    return square[: sum(SIZES)] * scale.repeat_interleave(torch.tensor(SIZES))[:, None]


def meaning(said: list[Attributes], basis: Float[Tensor, "values 128"]) -> Float[Tensor, "count 128"]:
    """The sum of the directions of what each caption says."""
    offsets = torch.tensor([sum(SIZES[:i]) for i in range(len(SIZES))])
    return basis[torch.tensor([encode(attributes) for attributes in said]) + offsets].sum(1)


def heard(state: Float[Tensor, "count 128"], basis: Float[Tensor, "values 128"]) -> Int[Tensor, "count slots"]:
    """The value of every attribute that a state says: the nearest direction."""
    parts = torch.split(state @ basis.T, list(SIZES), dim=1)
    return torch.stack([torch.argmax(part, dim=1) for part in parts], dim=1)


def captions(rng: random.Random, count: int) -> list[Caption]:
    """New captions of pictures nobody needs to draw."""
    layouts = rng.choices(list(MIX), list(MIX.values()), k=count)
    return [describe(sample(rng, layout) if layout else Attributes(), rng) for layout in layouts]


def train(tokenizer: CLIPTokenizer, out: Path, schedule: Schedule, seed: int) -> CLIPTextModel:
    """Train, report what is understood, and write `out/text_encoder.pt`."""
    set_seed(seed)
    rng, basis, model = random.Random(seed), directions(seed), build(tokenizer)
    learner = Learner(model, schedule.learning_rate, weight_decay=0.01, momentum=0.98)
    meter = Meter("text encoder", 0, schedule.steps)
    for step in range(schedule.steps):
        length, count = (LENGTH, schedule.batch * 3 // 8) if step % 6 == 5 else (SHORT, schedule.batch)
        batch = captions(rng, count)
        ids = tokens(tokenizer, [caption.text for caption in batch], length)
        wanted = meaning([caption.said for caption in batch], basis)[:, None]
        loss = (_weights(ids, tokenizer) * (states(model, ids) - wanted).square().mean(-1)).mean()
        learner.learn(loss, step, rate(step, schedule.steps, hold=0.3))
        meter.count(step, loss, report(model, tokenizer, basis) if step % 100 == 99 else "")
    torch.save({"model": model.state_dict(), "basis": basis}, out / "text_encoder.pt")
    return model.eval()


def _weights(ids: Int[Tensor, "count length"], tokenizer: CLIPTokenizer) -> Float[Tensor, "count length"]:
    """Positions before the end have not heard everything yet: they count less."""
    ended = (ids == cast(int, tokenizer.eos_token_id)).cumsum(1) > 0
    return 0.15 + 0.85 * ended.float()


@torch.no_grad()
def report(model: CLIPTextModel, tokenizer: CLIPTokenizer, basis: Float[Tensor, "values 128"], count: int = 256) -> str:
    """How many captions are understood whole, alone and in pairs, and how far the states spread."""
    batch = captions(random.Random(9), count)
    ids = tokens(tokenizer, [caption.text for caption in batch])
    last = states(model.eval(), ids)[:, -1]
    model.train()
    right = heard(last, basis) == torch.tensor([encode(caption.said) for caption in batch])
    pairs = torch.tensor([bool(caption.said.object2) for caption in batch])
    spread = float(_length(last - torch.mean(last, dim=0)) / _length(last))
    singles, doubles = right.all(1)[~pairs].float().mean(), right.all(1)[pairs].float().mean()
    return f"understood {singles:.3f}, pairs {doubles:.3f}, spread {spread:.2f}"


def _length(rows: Float[Tensor, "count 128"]) -> Tensor:
    return rows.square().sum(1).sqrt().mean()


def load(path: Path, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """The trained encoder."""
    model = build(tokenizer)
    model.load_state_dict(read(path)["model"])
    return model.eval()
