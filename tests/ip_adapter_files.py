"""IP-Adapters' files as they are published, tiny and random: for a U-Net of diffusers, in each design."""

from pathlib import Path
from typing import Any

from torch import Tensor

from tests.original_layouts import Shapes, below, linear, norm, random_weights, write_weights
from tests.picture_encoders import SPACE, WIDTH

TOKENS, QUERIES, INNER, DEPTH = 4, 5, 16, 4
"""diffusers goes by these numbers of tokens of the base design and of layers of the plus design, whatever the file."""


def ip_adapter_weights(unet: Any, design: str, seed: int = 1) -> dict[str, Tensor]:
    """Below `image_proj.` and `ip_adapter.`; `unet` may be any of diffusers' U-Nets."""
    width: int = unet.config.cross_attention_dim
    shapes = below("image_proj.", PROJECTIONS[design](width))
    for at, name in enumerate(unet.attn_processors):
        module = unet.get_submodule(name.removesuffix(".processor"))
        if module.is_cross_attention:
            shapes |= linear(f"ip_adapter.{at}.to_k_ip", module.inner_dim, width, bias=False)
            shapes |= linear(f"ip_adapter.{at}.to_v_ip", module.inner_dim, width, bias=False)
    return random_weights(shapes, seed)


def write_ip_adapter(path: Path, unet: Any, design: str) -> dict[str, Tensor]:
    weights = ip_adapter_weights(unet, design)
    write_weights(path, weights)
    return weights


def _base(width: int) -> Shapes:
    return linear("proj", TOKENS * width, SPACE) | norm("norm", width)


def _full_face(width: int) -> Shapes:
    return linear("proj.0", WIDTH, WIDTH) | linear("proj.2", width, WIDTH) | norm("proj.3", width)


def _plus(width: int) -> Shapes:
    shapes: Shapes = {"latents": (1, QUERIES, INNER)}
    shapes |= linear("proj_in", INNER, WIDTH) | linear("proj_out", width, INNER) | norm("norm_out", width)
    for layer in range(DEPTH):
        attention, feed = f"layers.{layer}.0", f"layers.{layer}.1"
        shapes |= norm(f"{attention}.norm1", INNER) | norm(f"{attention}.norm2", INNER)
        shapes |= linear(f"{attention}.to_q", 64, INNER, False) | linear(f"{attention}.to_kv", 128, INNER, False)
        shapes |= linear(f"{attention}.to_out", INNER, 64, False) | norm(f"{feed}.0", INNER)
        shapes |= linear(f"{feed}.1", 4 * INNER, INNER, False) | linear(f"{feed}.3", INNER, 4 * INNER, False)
    return shapes


PROJECTIONS = {"base": _base, "plus": _plus, "full face": _full_face}


def as_diffusers_takes_them(weights: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    return {
        part: {
            name.removeprefix(f"{part}."): tensor.clone() for name, tensor in weights.items() if name.startswith(part)
        }
        for part in ("image_proj", "ip_adapter")
    }
