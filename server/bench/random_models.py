"""Stable Diffusion with random weights: what it costs does not depend on what was learned."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

from nodes.engine import Engine

RandomModel = Literal["sd15", "sdxl-small"]

WORDS = 49_408
SEED = 0
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
SDXL_SMALL: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 1, 2),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
"""SDXL's widths with two layers of attention where it has ten."""


def write_folder(folder: Path, kind: RandomModel = "sd15") -> Path:
    """A model as diffusers has it, in half precision: 2.1 GB for SD 1.5. Its words are the embedded model's."""
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection

    from nodes.checkpoints import CHECKPOINTS

    own = CHECKPOINTS.locate(Engine().folders, "loomlet")
    ends = json.loads((own / "text_encoder" / "config.json").read_text())
    words = {name: ends[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}

    def text(width: int, layers: int, heads: int) -> Any:
        return cast(Any, CLIPTextConfig)(
            vocab_size=WORDS,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            projection_dim=width,
            **words,
        )

    unet, vae = cast(Any, UNet2DConditionModel), cast(Any, AutoencoderKL)
    parts: dict[str, Callable[[], Any]] = {"text_encoder": lambda: cast(Any, CLIPTextModel)(text(768, 12, 12))}
    index = json.loads((own / "model_index.json").read_text())
    if kind == "sd15":
        parts["unet"] = lambda: unet(sample_size=64, cross_attention_dim=768)
        parts["vae"] = lambda: vae(**VAE)
    else:
        parts["unet"] = lambda: unet(**SDXL_SMALL)
        parts["vae"] = lambda: vae(**VAE, scaling_factor=0.13025)
        parts["text_encoder_2"] = lambda: cast(Any, CLIPTextModelWithProjection)(text(1280, 4, 20))
        second = {"tokenizer_2": index["tokenizer"], "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]}
        kept = {name: value for name, value in index.items() if "safety" not in name}
        index = {**kept, **second, "_class_name": "StableDiffusionXLPipeline"}
    with cast(Any, torch).random.fork_rng():
        cast(Any, torch).manual_seed(SEED)
        for name, make in parts.items():
            make().half().save_pretrained(folder / name)
    shutil.copytree(own / "scheduler", folder / "scheduler")
    for name in ("tokenizer", "tokenizer_2") if "tokenizer_2" in index else ("tokenizer",):
        shutil.copytree(own / "tokenizer", folder / name)
    (folder / "model_index.json").write_text(json.dumps(index))
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
