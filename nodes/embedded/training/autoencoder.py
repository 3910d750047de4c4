"""The autoencoder: pictures to whitened latents and back, first trained whole, then its decoder alone for sharpness."""

import os
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from . import album
from .progress import Learner, Meter, rate, read, set_seed
from .ranks import launch, world

Pictures = Float[Tensor, "count 3 height width"]
Latents = Float[Tensor, "count 4 height width"]

CONFIG: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (16, 32, 64, 96),
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 8,
    "sample_size": 128,
    "scaling_factor": 1.0,
}


class Schedule(NamedTuple):
    """How long and how hard: whole network on crops, then on whole pictures; the decoder alone afterwards."""

    steps: int = 2000
    cropped: float = 0.45
    batch: int = 5
    learning_rate: float = 1.2e-3


def build() -> AutoencoderKL:
    return AutoencoderKL(**CONFIG)


def to_tensor(pictures: UInt8[np.ndarray, "count height width 3"]) -> Pictures:
    """From bytes to -1 to 1."""
    return torch.tensor(np.asarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_bytes(pictures: Pictures) -> UInt8[np.ndarray, "count height width 3"]:
    """From -1 to 1 to bytes."""
    scaled = ((pictures.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).contiguous().numpy()


def decode(model: AutoencoderKL, latents: Latents) -> Pictures:
    return cast(Any, model).decode(latents).sample


def encode(model: AutoencoderKL, pictures: Pictures) -> Latents:
    """The mean of the posterior."""
    return cast(Any, model).encode(pictures).latent_dist.mean


def _slopes(x: Pictures) -> tuple[Pictures, Pictures]:
    return x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]


def _loss(made: Pictures, wanted: Pictures) -> Tensor:
    """L1, squared and slope differences, weighted towards edges: flat areas are easy and most of the picture."""
    with torch.no_grad():
        down, right = _slopes(wanted)
        edges = F.pad(down.abs().sum(1, keepdim=True), (0, 0, 0, 1)) + F.pad(right.abs().sum(1, keepdim=True), (0, 1))
        weight = 1 + 2 * F.max_pool2d(edges, 3, 1, 1).clamp(max=1)
    difference = made - wanted
    slopes = sum(((a - b).abs().mean() for a, b in zip(_slopes(made), _slopes(wanted), strict=True)), torch.zeros(()))
    return (weight * (difference.abs() + 2 * difference**2)).mean() + 0.5 * slopes


def _crops(pictures: Pictures, generator: torch.Generator, side: int = 64) -> Pictures:
    """One crop of each picture, at its own place."""
    spots = torch.randint(0, pictures.shape[-1] - side + 1, (len(pictures), 2), generator=generator).numpy()
    return torch.stack([p[:, y : y + side, x : x + side] for p, (y, x) in zip(pictures, spots, strict=True)])


def _train_whole(rank: int, pictures: Path, out: Path, schedule: Schedule, seed: int) -> None:
    set_seed(seed)
    model = build()
    learner = Learner(model, schedule.learning_rate, out / "autoencoder.pt", decay=0.997, together=True)
    first = learner.resume()
    generator = torch.Generator().manual_seed(seed * 1000 + first * 10 + rank)
    data, meter = album.load(pictures), Meter("autoencoder", first, schedule.steps)
    for step in range(first, schedule.steps):
        batch = _batch(data, schedule, step, generator)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = cast(Any, model).encode(batch).latent_dist
            made = decode(model, posterior.sample(generator=generator)).float()
        places = posterior.mean[0, 0].numel()
        loss = _loss(made, batch) + 3e-4 * posterior.kl().mean() / places
        learner.learn(loss, step, rate(step, schedule.steps, hold=0.4))
        if rank == 0:
            meter.count(step, loss)
            _keep(learner, step + 1, schedule)


def _batch(
    data: UInt8[np.ndarray, "count height width 3"], schedule: Schedule, step: int, generator: torch.Generator
) -> Pictures:
    """In the first part many crops, afterwards fewer whole pictures."""
    cropped = step < schedule.cropped * schedule.steps
    count = schedule.batch * 4 if cropped else schedule.batch
    pictures = to_tensor(data[_chosen(len(data), count, generator)])
    return _crops(pictures, generator) if cropped else pictures


def _chosen(total: int, count: int, generator: torch.Generator) -> Int[np.ndarray, " count"]:
    return torch.randint(0, total, (count,), generator=generator).sort().values.numpy()


def _keep(learner: Learner, done: int, schedule: Schedule) -> None:
    if done % 400 == 0 or done == schedule.steps:
        learner.save(done)


def train(pictures: Path, out: Path, schedule: Schedule, seed: int) -> None:
    """Train the whole autoencoder; the averaged weights land in `out/autoencoder.pt`."""
    launch(_train_whole, pictures, out, schedule, seed)


def whiten(pictures: Path, out: Path, count: int = 1500) -> None:
    """Fold into the outer 1x1 convolutions what gives the latents mean 0 and covariance 1; write `out/vae.pt`."""
    model = _averaged(out / "autoencoder.pt")
    data = album.load(pictures)[:count]
    data = album.load(pictures)[:count]
    means = [_moments(model, to_tensor(data[start : start + 50])) for start in range(0, len(data), 50)]
    mean, noise = (torch.cat(parts).double() for parts in zip(*means, strict=True))
    centre = mean.mean(0)
    white, colour = _whitening((mean - centre).T.cov())
    inner, outer = _inner(model), _outer(model)
    with torch.no_grad():
        weight, bias = _matrix(inner)
        inner.weight[:4] = (white @ weight[:4]).float()[..., None, None]
        _bias(inner)[:4] = (white @ (bias[:4] - centre)).float()
        inner.weight[4:] = 0
        _bias(inner)[4:] = (white**2 @ noise.mean(0)).log().float()
        weight, bias = _matrix(outer)
        outer.weight.copy_((weight @ colour).float()[..., None, None])
        _bias(outer).copy_((bias + weight @ centre).float())
    torch.save({"average": model.state_dict()}, out / "vae.pt")


def _whitening(covariance: Float[Tensor, "4 4"]) -> tuple[Float[Tensor, "4 4"], Float[Tensor, "4 4"]]:
    """The symmetric root of the covariance's inverse, and that of the covariance."""
    eigen: tuple[Tensor, Tensor] = cast(Any, torch.linalg).eigh(covariance)
    values, vectors = eigen
    return vectors * values**-0.5 @ vectors.T, vectors * values**0.5 @ vectors.T


def _inner(model: AutoencoderKL) -> nn.Conv2d:
    return cast(nn.Conv2d, model.quant_conv)


def _outer(model: AutoencoderKL) -> nn.Conv2d:
    return cast(nn.Conv2d, model.post_quant_conv)


def _matrix(layer: nn.Conv2d) -> tuple[Float[Tensor, "out in"], Float[Tensor, " out"]]:
    return layer.weight.detach().clone().double()[..., 0, 0], _bias(layer).detach().clone().double()


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


@torch.no_grad()
def _moments(model: AutoencoderKL, pictures: Pictures) -> tuple[Float[Tensor, "places 4"], Float[Tensor, "places 4"]]:
    """Mean and variance of the posterior at every place."""
    posterior = cast(Any, model).encode(pictures).latent_dist
    return tuple(part.permute(0, 2, 3, 1).reshape(-1, 4) for part in (posterior.mean, posterior.var))


def _encode_share(rank: int, pictures: Path, latents: Path, out: Path) -> None:
    model, data, page = load(out), album.load(pictures), 50
    target = np.load(latents, mmap_mode="r+")
    for start in range(rank * page, len(data), world() * page):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            made = encode(model, to_tensor(data[start : start + page]))
        target[start : start + page] = made.float().numpy()
    target.flush()


def encode_album(pictures: Path, out: Path) -> Path:
    """The latents of all pictures of an album, in a file beside it."""
    latents = pictures.with_suffix(".latents.npy")
    if latents.exists():
        return latents
    part = latents.with_suffix(".part.npy")
    count, side = album.load(pictures).shape[:2]
    np.lib.format.open_memmap(part, mode="w+", dtype=np.float16, shape=(count, 4, side // 8, side // 8)).flush()
    launch(_encode_share, pictures, part, out)
    os.replace(part, latents)
    return latents


def _train_decoder(rank: int, pictures: Path, out: Path, schedule: Schedule, seed: int) -> None:
    """The encoder stays as it is; a little noise in the latents prepares the decoder for what a U-Net makes."""
    set_seed(seed)
    model = _averaged(out / "vae.pt").train()
    parts = [*model.decoder.parameters(), *_outer(model).parameters()]
    learner = Learner(model, schedule.learning_rate, out / "decoder.pt", parts, decay=0.998, together=True)
    first = learner.resume()
    generator = torch.Generator().manual_seed(seed * 1000 + first * 10 + rank)
    data, latents = album.load(pictures), np.load(pictures.with_suffix(".latents.npy"), mmap_mode="r")
    meter = Meter("decoder", first, schedule.steps)
    for step in range(first, schedule.steps):
        chosen = _chosen(len(data), schedule.batch, generator)
        clean = torch.tensor(latents[chosen]).float()
        noise = torch.randn(clean.shape, generator=generator)
        with torch.autocast("cpu", torch.bfloat16):
            made = decode(model, clean + 0.08 * noise).float()
        loss = _loss(made, to_tensor(data[chosen]))
        learner.learn(loss, step, rate(step, schedule.steps, hold=0.3))
        if rank == 0:
            meter.count(step, loss)
            _keep(learner, step + 1, schedule)


def refine(pictures: Path, out: Path, schedule: Schedule, seed: int) -> None:
    """Train the decoder alone; the averaged weights land in `out/decoder.pt`."""
    launch(_train_decoder, pictures, out, schedule, seed)


def _averaged(path: Path) -> AutoencoderKL:
    model = build()
    model.load_state_dict(read(path)["average"])
    return model.eval()


def load(out: Path) -> AutoencoderKL:
    """The best there is so far: with the refined decoder, or whitened."""
    refined = out / "decoder.pt"
    return _averaged(refined if refined.exists() else out / "vae.pt")


@torch.no_grad()
def rebuilt(model: AutoencoderKL, pictures: UInt8[np.ndarray, "count height width 3"]) -> Any:
    """The pictures encoded and decoded again."""
    batches = [to_tensor(pictures[start : start + 50]) for start in range(0, len(pictures), 50)]
    return np.concatenate([to_bytes(decode(model, encode(model, batch))) for batch in batches])


def fidelity(made: UInt8[np.ndarray, "*shape"], wanted: UInt8[np.ndarray, "*shape"]) -> float:
    """Peak signal-to-noise ratio in decibels, averaged over pictures."""
    error = ((made.astype(np.float32) - wanted) ** 2).reshape(len(made), -1).mean(1)
    return float((10 * np.log10(255**2 / error)).mean())
