"""A painter: the four parts of the model together, turning prompts and seeds into pictures in one batch."""

from pathlib import Path
from typing import Any, NamedTuple, Self, cast

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from jaxtyping import UInt8
from transformers import CLIPTextModel, CLIPTokenizer

from . import autoencoder, text_encoder, tokenizer
from .diffusion import euler, guided, seeded

BATCH = 20


class Painter(NamedTuple):
    """Prompts in, pictures out: twenty Euler steps and guidance of 2 unless told otherwise."""

    tokenizer: CLIPTokenizer
    text: CLIPTextModel
    unet: UNet2DConditionModel
    autoencoder: AutoencoderKL
    steps: int = 20
    scale: float = 2.0

    @classmethod
    def load(cls, out: Path, steps: int = 20) -> Self:
        """From the files of a training run, finished or not."""
        from . import unet

        words = tokenizer.load(out / "tokenizer")
        text = text_encoder.load(out / "text_encoder.pt", words)
        return cls(words, text, unet.load_average(out / "unet.pt"), autoencoder.load(out), steps)

    @classmethod
    def shipped(cls, folder: Path, steps: int = 20) -> Self:
        """From a checkpoint folder in diffusers layout."""

        def part(kind: Any, name: str) -> Any:
            return kind.from_pretrained(folder / name, local_files_only=True).float().eval()

        return cls(
            tokenizer.load(folder / "tokenizer"),
            part(CLIPTextModel, "text_encoder"),
            part(UNet2DConditionModel, "unet"),
            part(AutoencoderKL, "vae"),
            steps,
        )

    def paint(self, prompts: list[str], seeds: list[int], size: int) -> UInt8[np.ndarray, "count height width 3"]:
        """One picture for each prompt and seed."""
        batches = [
            self._paint(prompts[start : start + BATCH], seeds[start : start + BATCH], size)
            for start in range(0, len(prompts), BATCH)
        ]
        return np.concatenate(batches)

    @torch.no_grad()
    def _paint(self, prompts: list[str], seeds: list[int], size: int) -> UInt8[np.ndarray, "count height width 3"]:
        ids = tokenizer.tokens(self.tokenizer, [*prompts, ""])
        states = text_encoder.states(self.text, ids)
        velocity = guided(self.unet, states[:-1], states[-1:], self.scale)
        latents = euler(velocity, seeded(seeds, size), self.steps)
        scale = float(cast(Any, self.autoencoder.config).scaling_factor)
        return autoencoder.to_bytes(autoencoder.decode(self.autoencoder, latents / scale))
