"""Whole checkpoints of Stable Diffusion 3 and Flux, scaled down: as folders of diffusers', and the same in one file."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graph.folders import Folders
from tests import small_transformers, t5_models, text_families, tiny_models
from tests.original_layouts import write_weights
from tests.small_transformers import SMALL, Small
from tests.text_families import LARGE, LOW, T5_WIDTH

LIBRARIES = {
    "CLIPTextModel": "CLIPTokenizer",
    "CLIPTextModelWithProjection": "CLIPTokenizer",
    "T5EncoderModel": "T5Tokenizer",
}
WHOLE: dict[str, Small] = {
    name: replace(
        small,
        network=replace(small.network, context=T5_WIDTH, pooled=LOW if name.startswith("Flux") else LOW + LARGE),
    )
    for name, small in SMALL.items()
    if name in ("SD 3", "Flux dev")
}
"""Networks that fit the text encoders."""


def data_below(folder: Path) -> Folders:
    """A data folder with all of them, and with the tokenizers that their files lack."""
    folders = Folders.below(folder)
    tiny_models.write_tokenizer(folders.models("tokenizers") / "clip")
    t5_models.write_tokenizer(folders.models("tokenizers") / "t5")
    for name in WHOLE:
        write_whole(folders.models("checkpoints") / name, name)
    return folders


def write_whole(folder: Path, name: str) -> Path:
    """The folder, and beside it the file of the same name."""
    small, flux = WHOLE[name], name.startswith("Flux")
    small_transformers.write_network_folder(folder / "transformer", small.network)
    tiny_models.save(small_transformers.vae(small), folder / "vae")
    texts = text_families.write_texts(folder)
    own = {"": "CLIPTextModelWithProjection", "_2": "CLIPTextModelWithProjection", "_3": "T5EncoderModel"}
    if flux:
        own = {"": "CLIPTextModel", "_2": "T5EncoderModel"}
        del texts["clip_g"]
        for part in ("text_encoder", "tokenizer"):
            (folder / f"{part}_2").rename(folder / f"{part}_of_none")
            (folder / f"{part}_3").rename(folder / f"{part}_2")
    else:
        # As published: the projection of CLIP-L, which files have none of, changes nothing.
        low = texts["clip_l"] | {"text_projection.weight": torch.eye(LOW)}
        tiny_models.save_weights(low, folder / "text_encoder" / "model.safetensors")
    index: dict[str, Any] = {
        "_class_name": small.pipeline,
        "_diffusers_version": "0.35.0",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "transformer": ["diffusers", "FluxTransformer2DModel" if flux else "SD3Transformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        **{f"text_encoder{end}": ["transformers", kind] for end, kind in own.items()},
        **{f"tokenizer{end}": ["transformers", LIBRARIES[kind]] for end, kind in own.items()},
        **{part: [None, None] for part in ("image_encoder", "feature_extractor")},
    }
    tiny_models.write_json(folder / "model_index.json", index)
    scheduler = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0, "use_dynamic_shifting": flux}
    tiny_models.write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    write_weights(folder.with_name(f"{name}.safetensors"), in_one_file(small, texts))
    return folder


def in_one_file(small: Small, texts: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    network, vae = small_transformers.network_weights(small.network), small_transformers.vae_weights()
    return {
        **{f"model.diffusion_model.{name}": tensor for name, tensor in network.items()},
        **{f"first_stage_model.{name}": tensor for name, tensor in vae.items()},
        **text_families.in_one_file(texts),
    }
