"""Export: the trained parts as one checkpoint in diffusers' folder layout, in half precision."""

import json
import shutil
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from torch.nn import Module

from . import autoencoder, text_encoder, tokenizer, unet
from .diffusion import SCHEDULE

PARTS = {
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "safety_checker": [None, None],
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
}


def write(out: Path, folder: Path) -> None:
    """Write the checkpoint beside its place, then put it there."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    index = {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False, **PARTS}
    (part / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    shutil.copytree(out / "tokenizer", part / "tokenizer")
    words = tokenizer.load(out / "tokenizer")
    _save(text_encoder.load(out / "text_encoder.pt", words), part / "text_encoder")
    _save(unet.load_average(out / "unet.pt"), part / "unet")
    _save(autoencoder.load(out), part / "vae")
    scheduler = EulerDiscreteScheduler(**SCHEDULE, timestep_spacing="linspace", steps_offset=1)
    cast(Any, scheduler).save_pretrained(part / "scheduler")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def _save(module: Module, folder: Path) -> None:
    half = cast(Any, module.to(torch.float16))
    half.save_pretrained(folder, safe_serialization=True)
    for path in folder.iterdir():
        path.chmod(0o644)


def size(folder: Path) -> int:
    """Bytes of the whole checkpoint."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
