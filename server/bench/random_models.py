"""Stable Diffusion of full size with random weights: what it costs does not depend on what was learned."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from nodes.engine import Engine

WORDS = 49_408
SEED = 0


def write_folder(folder: Path) -> Path:
    """Stable Diffusion 1.5 as diffusers has it, in half precision: 2.1 GB. Its words are the embedded model's."""
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel

    from nodes.checkpoints import CHECKPOINTS

    own = CHECKPOINTS.locate(Engine().folders, "loomlet")
    ends = json.loads((own / "text_encoder" / "config.json").read_text())
    words = {name: ends[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = cast(Any, CLIPTextConfig)(
        vocab_size=WORDS,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        projection_dim=768,
        **words,
    )
    vae: dict[str, Any] = {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
    }
    parts: dict[str, Callable[[], Any]] = {
        "unet": lambda: cast(Any, UNet2DConditionModel)(sample_size=64, cross_attention_dim=768),
        "vae": lambda: cast(Any, AutoencoderKL)(**vae),
        "text_encoder": lambda: cast(Any, CLIPTextModel)(text),
    }
    with cast(Any, torch).random.fork_rng():
        cast(Any, torch).manual_seed(SEED)
        for name, make in parts.items():
            make().half().save_pretrained(folder / name)
    for name in ("scheduler", "tokenizer"):
        shutil.copytree(own / name, folder / name)
    shutil.copy(own / "model_index.json", folder)
    return folder


def write_file(folder: Path, checkpoint: str, models: Path) -> Path:
    """The same in the original layout, in one file, with its words beside it."""
    from graph.builder import WorkflowBuilder
    from graph.folders import Folders
    from nodes.checkpoints import load_checkpoint
    from nodes.model_saving import save_checkpoint

    with WorkflowBuilder() as workflow:
        model, clip, vae = load_checkpoint(ckpt_name=checkpoint)
        save_checkpoint(model=model, clip=clip, vae=vae, filename_prefix="one")
    Engine(Folders.below(folder)).run(workflow).checked()
    (written,) = (folder / "output").glob("one*.safetensors")
    shutil.copytree(models / checkpoint / "tokenizer", models / "tokenizer")
    return written.rename(models / f"{checkpoint}.safetensors")
