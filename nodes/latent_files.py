"""Read and write `.latent` files: safetensors with one latent batch, as ComfyUI's SaveLatent makes them."""

from pathlib import Path
from typing import TYPE_CHECKING

from nodes.file_errors import LatentFileError

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

# Files from before the version key hold latents scaled by Stable Diffusion 1's factor.
OLD_SCALE = 1.0 / 0.18215
VERSION_KEY = "latent_format_version_0"
LATENT_KEY = "latent_tensor"


def encode_latent(samples: "Float[Tensor, 'batch channels height width']", text: dict[str, str]) -> bytes:
    """A `.latent` file with these samples and texts (`prompt`, `workflow`)."""
    import torch
    from safetensors.torch import save

    return save({LATENT_KEY: samples.detach().cpu().contiguous(), VERSION_KEY: torch.empty(0)}, text or None)


def decode_latent(path: Path) -> "Float[Tensor, 'batch channels height width']":
    """The samples in a `.latent` file as float32. Raises LatentFileError."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(path.read_bytes())
    except OSError as error:
        raise LatentFileError(path, f"it cannot be read ({error.strerror}). Check the name.") from error
    except (SafetensorError, ValueError) as error:
        raise LatentFileError(
            path, "it is damaged, cut short or not a safetensors file. Save the latent again with SaveLatent."
        ) from error
    if LATENT_KEY not in tensors:
        raise LatentFileError(path, f"it holds no '{LATENT_KEY}'. Choose a file written by SaveLatent.")
    samples = tensors[LATENT_KEY].float()
    if samples.ndim != 4:
        raise LatentFileError(
            path, f"its latent has the shape {tuple(samples.shape)}, not batch, channels, height, width."
        )
    return samples if VERSION_KEY in tensors else samples * OLD_SCALE
