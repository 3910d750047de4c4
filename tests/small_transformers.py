"""Stable Diffusion 3, 3.5 and Flux with the real architecture, scaled down: as files, and the same weights as folders.

The folders are made with diffusers' own converters, so that they share no code with what reads the files.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from nodes.single_files import read_single_unet
from nodes.values import Model
from tests import original_layouts as layouts
from tests import tiny_models
from tests.original_layouts import Shapes
from tests.transformer_layouts import Flux, Sd3, flux, sd3

CONTEXT, POOLED, CHANNELS = 48, 32, 16
ENCODER: dict[str, Any] = {"channels": 32, "multipliers": (1, 1, 1, 1), "blocks": 1, "latent": CHANNELS}
TABLE = 3072
"""How wide diffusers' converter takes every network of Flux to be."""


@dataclass(frozen=True)
class Small:
    """A scaled-down transformer, and what its pipeline is like."""

    network: Sd3 | Flux
    pipeline: str
    scale: float
    shift: float


_SD3 = Sd3(128, 3, positions=12, context=CONTEXT, pooled=POOLED)
_FLUX = Flux(64, 2, 2, context=CONTEXT, pooled=POOLED, head=32)
SMALL: dict[str, Small] = {
    "SD 3": Small(_SD3, "StableDiffusion3Pipeline", 1.5305, 0.0609),
    "SD 3.5": Small(
        Sd3(128, 3, positions=12, dual=2, normed=True, context=CONTEXT, pooled=POOLED),
        "StableDiffusion3Pipeline",
        1.5305,
        0.0609,
    ),
    "Flux dev": Small(_FLUX, "FluxPipeline", 0.3611, 0.1159),
    "Flux schnell": Small(
        Flux(64, 2, 2, guided=False, context=CONTEXT, pooled=POOLED, head=32), "FluxPipeline", 0.3611, 0.1159
    ),
}


def network_shapes(of: Sd3 | Flux) -> Shapes:
    return sd3(of) if isinstance(of, Sd3) else flux(of)


def network_weights(of: Sd3 | Flux, seed: int = 0) -> dict[str, Tensor]:
    return layouts.random_weights(network_shapes(of), seed)


def vae_weights() -> dict[str, Tensor]:
    return layouts.random_weights(layouts.vae(**ENCODER), seed=1)


def network_class(of: Sd3 | Flux) -> Any:
    if isinstance(of, Sd3):
        from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel as Network
    else:
        from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel as Network
    return Network


def config(of: Sd3 | Flux) -> dict[str, Any]:
    """diffusers' configuration."""
    alike = {"joint_attention_dim": of.context, "pooled_projection_dim": of.pooled}
    alike |= {"attention_head_dim": of.head, "num_attention_heads": of.width // of.head}
    if isinstance(of, Sd3):
        own = {"num_layers": of.blocks, "caption_projection_dim": of.width, "pos_embed_max_size": of.positions}
        told = {"dual_attention_layers": tuple(range(of.dual)), "qk_norm": "rms_norm" if of.normed else None}
        return {**alike, **own, **told, "sample_size": 8}
    rotary = (of.head // 8, of.head * 7 // 16, of.head * 7 // 16)
    own = {"num_layers": of.doubles, "num_single_layers": of.singles, "guidance_embeds": of.guided}
    return {**alike, **own, "axes_dims_rope": rotary, "in_channels": of.inputs, "out_channels": of.outputs}


def converted(of: Sd3 | Flux, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights by diffusers' names."""
    from diffusers.loaders import single_file_utils

    convert: Any = single_file_utils
    if isinstance(of, Sd3):
        return convert.convert_sd3_transformer_checkpoint_to_diffusers(dict(weights))
    shares = (of.width, of.width, of.width, 4 * of.width)
    fused = {name: weight for name, weight in weights.items() if ".linear1." in name}
    found = convert.convert_flux_transformer_checkpoint_to_diffusers(
        weights | {name: torch.empty(7 * TABLE, *weight.shape[1:]) for name, weight in fused.items()}
    )
    for name, weight in fused.items():
        _, block, _, kind = name.split(".")
        for part, rows in zip(
            ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"), cast(Any, weight).split(shares), strict=True
        ):
            found[f"single_transformer_blocks.{block}.{part}.{kind}"] = rows
    return found


def network(of: Sd3 | Flux, seed: int = 0) -> Any:
    """diffusers' network with the weights of the files."""
    made = network_class(of)(**config(of))
    made.load_state_dict(converted(of, network_weights(of, seed)))
    return made.eval()


def write_network(path: Path, of: Sd3 | Flux, prefix: str = "", seed: int = 0) -> Path:
    """The transformer alone as a file in the original layout."""
    return layouts.write_weights(
        path, {f"{prefix}{name}": tensor for name, tensor in network_weights(of, seed).items()}
    )


def read_networks(folder: Path, *names: str) -> dict[str, Model]:
    """Models of `SMALL`, each from a file of its own."""
    return {
        name: read_single_unet(write_network(folder / f"{name}.safetensors", SMALL[name].network), name)
        for name in names
    }


def drawn(*shape: int, seed: int) -> Tensor:
    """Numbers to ask networks with."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def write_network_folder(folder: Path, of: Sd3 | Flux) -> Path:
    """The transformer alone in diffusers' layout."""
    tiny_models.save(network(of), folder)
    return folder


def vae(small: Small) -> Any:
    """diffusers' autoencoder with the weights of the files."""
    from diffusers.loaders import single_file_utils
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    widths = [ENCODER["channels"]] * 4
    own = {"block_out_channels": widths, "layers_per_block": 1, "latent_channels": CHANNELS}
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    scales = {"scaling_factor": small.scale, "shift_factor": small.shift, "sample_size": 64}
    settings = {**own, **blocks, **scales, "use_quant_conv": False, "use_post_quant_conv": False}
    made = cast(Any, AutoencoderKL)(**settings)
    convert: Any = single_file_utils
    found = convert.convert_ldm_vae_checkpoint(vae_weights(), settings)
    wanted = made.state_dict()
    made.load_state_dict({name: tensor.reshape(wanted[name].shape) for name, tensor in found.items()})
    return made.eval()
