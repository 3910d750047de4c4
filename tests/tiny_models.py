"""A Stable-Diffusion-1.x-family checkpoint with tiny random networks, for tests."""

import json
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch

WIDTH = 32
MERGES = ("c a", "ca t</w>", "d o", "do g</w>", "t h", "th e</w>", "a n", "an d</w>", "b l", "u e</w>", "bl ue</w>")


def write_checkpoint(folder: Path, *, half: bool = False) -> Path:
    """Write a whole checkpoint below `folder` and return it. The weights are always the same."""
    seed(0)
    dtype = torch.float16 if half else torch.float32
    write_unet(folder / "unet", dtype)
    write_vae(folder / "vae", dtype)
    write_tokenizer(folder / "tokenizer")
    write_text_encoder(folder / "text_encoder", dtype)
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler())
    write_json(folder / "model_index.json", index())
    return folder


def index(**changes: object) -> dict[str, object]:
    return {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.35.0",
        "feature_extractor": [None, None],
        "safety_checker": [None, None],
        "requires_safety_checker": False,
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        **changes,
    }


def scheduler(**changes: object) -> dict[str, object]:
    return {
        "_class_name": "PNDMScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "trained_betas": None,
        **changes,
    }


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_unet(folder: Path, dtype: torch.dtype = torch.float32) -> None:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    save(unet, folder, dtype)


def write_vae(folder: Path, dtype: torch.dtype = torch.float32) -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    vae = cast(Any, AutoencoderKL)(
        block_out_channels=(4, 4, 4, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=2,
        scaling_factor=0.5,
    )
    save(vae, folder, dtype)


def write_text_encoder(folder: Path, dtype: torch.dtype = torch.float32) -> None:
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel

    words = len(json.loads((folder.parent / "tokenizer" / "vocab.json").read_text()))
    config = CLIPTextConfig(
        vocab_size=words,
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        bos_token_id=words - 2,
        eos_token_id=words - 1,
        pad_token_id=words - 1,
    )
    save(CLIPTextModel(config), folder, dtype)


def write_tokenizer(folder: Path) -> None:
    """CLIP's kind of vocabulary: all bytes, alone and at the end of a word, a few words, start and end."""
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = [merge.replace(" ", "") for merge in MERGES]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *made, "<|startoftext|>", "<|endoftext|>"]
    write_json(folder / "vocab.json", {word: number for number, word in enumerate(words)})
    (folder / "merges.txt").write_text("\n".join(("#version: 0.2", *MERGES)))
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    write_json(
        folder / "tokenizer_config.json", {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **special}
    )


def save(module: torch.nn.Module, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """The module's configuration and weights under the names its library uses."""
    folder.mkdir(parents=True, exist_ok=True)
    model = cast(Any, module)
    stem = "diffusion_pytorch_model" if hasattr(model, "save_config") else "model"
    if hasattr(model, "save_config"):
        model.save_config(folder)
    else:
        model.config.save_pretrained(folder)
    weights = {name: tensor.to(dtype).contiguous() for name, tensor in module.state_dict().items()}
    save_weights(weights, folder / f"{stem}.safetensors")


def save_weights(weights: dict[str, torch.Tensor], path: Path) -> None:
    cast(Any, safetensors.torch).save_file(weights, path, metadata={"format": "pt"})


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    return cast(Any, safetensors.torch).load_file(path)


def seed(number: int) -> None:
    cast(Any, torch).manual_seed(number)
