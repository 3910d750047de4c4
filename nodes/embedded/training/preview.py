"""The preview: the linear map from latents to colours, fitted on drawn pictures and kept beside the autoencoder.

`python -m nodes.embedded.training.preview` fits it anew for the model that ships.
"""

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from jaxtyping import UInt8
from torch import Tensor

from nodes.maths.previews import LinearMap, fit_linear_map
from nodes.model_folders import PREVIEW

from .. import LOOMLET
from . import autoencoder
from .album import Album
from .progress import say

PICTURES = Album("preview128", 240, 128, seed=4)


def write(folder: Path) -> None:
    """Fit the map for a checkpoint in diffusers layout, and put it into its folder."""
    model = cast(Any, AutoencoderKL).from_pretrained(folder / "vae", local_files_only=True).float().eval()
    linear = fit(model, PICTURES.page(0))
    (folder / "vae" / PREVIEW).write_text(json.dumps(_rounded(linear), indent=2) + "\n")


@torch.no_grad()
def fit(model: AutoencoderKL, pictures: UInt8[np.ndarray, "count height width 3"]) -> LinearMap:
    """The map from the latents of these pictures, at the scale of the network, to their colours."""
    scale = float(cast(Any, model.config).scaling_factor)
    batches = [autoencoder.to_tensor(pictures[start : start + 50]) for start in range(0, len(pictures), 50)]
    latents = torch.cat([autoencoder.encode(model, batch) * scale for batch in batches])
    return fit_linear_map(latents, (torch.cat(batches) + 1) / 2)


def _rounded(linear: LinearMap) -> dict[str, Any]:
    """A byte of a picture needs no more than four digits."""

    def numbers(tensor: Tensor) -> Any:
        return np.round(tensor.double().numpy(), 4).tolist()

    return {name: numbers(tensor) for name, tensor in linear._asdict().items()}


if __name__ == "__main__":
    write(LOOMLET)
    say("preview", f"{LOOMLET / 'vae' / PREVIEW}")
