"""Models of every family with the real architecture, scaled down: as one file, and the same weights as a folder.

The folder is made with diffusers' own converters, so that it shares no code with what reads the file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from tests import original_layouts as layouts
from tests import picture_encoders, tiny_models
from tests.original_layouts import Shapes, Text, Unet

ENCODER = {"channels": 32, "multipliers": (1, 1, 1, 1), "blocks": 1}


@dataclass(frozen=True)
class Small:
    """A scaled-down model: its U-Net, its text encoders by their prefixes, and how diffusers names it."""

    unet: Unet
    texts: Mapping[str, Text]
    pipeline: str
    scale: float = 0.18215
    prediction: str = "epsilon"


_OPENAI = Text(64, 2, 128)
_OPEN = Text(64, 3, 128, projection=64)
_SD1 = Unet(32, (1, 2), (1, 0), 64, blocks=1)
_SD2 = Unet(64, (1, 2), (1, 0), 64, blocks=1, linear=True)
_SDXL = Unet(64, (1, 1, 1), (0, 1, 2), 128, middle=2, blocks=1, told=64 + 6 * 256, linear=True)
_REFINER = Unet(64, (1, 1, 1, 1), (0, 1, 1, 0), 64, middle=1, blocks=1, told=64 + 5 * 256, linear=True)
_L, _G = layouts.EMBEDDERS

SMALL: dict[str, Small] = {
    "SD 1": Small(_SD1, {layouts.HF: _OPENAI}, "StableDiffusionPipeline"),
    "SD 1 of three levels": Small(
        replace(_SD1, multipliers=(1, 2, 2), depths=(1, 1, 0)), {layouts.HF: _OPENAI}, "StableDiffusionPipeline"
    ),
    "SD 2": Small(_SD2, {layouts.OPEN: _OPEN}, "StableDiffusionPipeline", prediction="v_prediction"),
    "SD 2 512": Small(_SD2, {layouts.OPEN: _OPEN}, "StableDiffusionPipeline"),
    "SDXL": Small(_SDXL, {_L: _OPENAI, _G: _OPEN}, "StableDiffusionXLPipeline", 0.13025),
    "SDXL refiner": Small(_REFINER, {layouts.REFINER_TEXT: _OPEN}, "StableDiffusionXLImg2ImgPipeline", 0.13025),
    "unCLIP": Small(
        replace(_SD2, told=2 * picture_encoders.SPACE),
        {layouts.OPEN: _OPEN},
        "StableUnCLIPImg2ImgPipeline",
        prediction="v_prediction",
    ),
    "inpainting": Small(replace(_SD1, inputs=9), {layouts.HF: _OPENAI}, "StableDiffusionInpaintPipeline"),
    "pix2pix": Small(replace(_SD1, inputs=8), {layouts.HF: _OPENAI}, "StableDiffusionInstructPix2PixPipeline"),
}


def is_open(prefix: str) -> bool:
    return prefix.endswith(".model.")


def shapes_of(small: Small, words: int) -> Shapes:
    texts = {
        prefix: (layouts.open_clip if is_open(prefix) else layouts.clip)(replace(text, words=words))
        for prefix, text in small.texts.items()
    }
    return layouts.checkpoint(small.unet, texts, layouts.vae(**cast(Any, ENCODER)))


def write_file(path: Path, small: Small, tokenizer: Path) -> dict[str, Tensor]:
    """The checkpoint as one file, whose weights are returned."""
    weights = layouts.random_weights(shapes_of(small, words_in(tokenizer)))
    layouts.write_weights(path, weights)
    return weights


def words_in(tokenizer: Path) -> int:
    import json

    return len(json.loads((tokenizer / "vocab.json").read_text()))


def write_folder(folder: Path, small: Small, weights: dict[str, Tensor]) -> Path:
    """The same weights in diffusers layout."""
    from diffusers.loaders import single_file_utils
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    convert: Any = single_file_utils
    index: dict[str, Any] = {"text_encoder": [None, None], "tokenizer": [None, None]}
    index["scheduler"] = ["diffusers", "EulerDiscreteScheduler"]
    unet = unet_config(small.unet)
    _save(UNet2DConditionModel(**unet), convert.convert_ldm_unet_checkpoint(dict(weights), unet), folder / "unet")
    vae = _vae_config(small)
    _save(cast(Any, AutoencoderKL)(**vae), convert.convert_ldm_vae_checkpoint(dict(weights), vae), folder / "vae")
    xl = "XL" in small.pipeline
    for prefix, text in small.texts.items():
        second = "_2" if xl and is_open(prefix) else ""
        tokenizer = folder / f"tokenizer{second}"
        tiny_models.write_tokenizer(tokenizer)
        if is_open(prefix):
            path = tokenizer / "tokenizer_config.json"
            path.write_text(path.read_text().replace('"pad_token": "<|endoftext|>"', '"pad_token": "!"'))
        _save_text(folder / f"text_encoder{second}", prefix, text, weights, words_in(tokenizer), xl)
        kind = "CLIPTextModelWithProjection" if second else "CLIPTextModel"
        index[f"text_encoder{second}"] = ["transformers", kind]
        index[f"tokenizer{second}"] = ["transformers", "CLIPTokenizer"]
    extra = {"force_zeros_for_empty_prompt": False, "requires_aesthetics_score": "score" in small.pipeline}
    if xl:
        extra["requires_aesthetics_score"] = small.unet.told == 64 + 5 * 256
    index = {"image_encoder": [None, None], **extra, **index} if xl else index
    tiny_models.write_json(folder / "model_index.json", tiny_models.index(_class_name=small.pipeline, **index))
    scheduler = tiny_models.scheduler(
        _class_name="EulerDiscreteScheduler",
        prediction_type=small.prediction,
        timestep_spacing="linspace",
        steps_offset=1,
    )
    tiny_models.write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    return folder


def unet_config(of: Unet) -> dict[str, Any]:
    widths = [of.channels * multiplier for multiplier in of.multipliers]
    config: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": of.inputs,
        "block_out_channels": widths,
        "layers_per_block": of.blocks,
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in of.depths],
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(of.depths)],
        "transformer_layers_per_block": [*(depth or 1 for depth in of.depths[:-1]), of.middle],
        "cross_attention_dim": of.context,
        "attention_head_dim": [width // 64 for width in widths] if of.linear else 8,
        "use_linear_projection": of.linear,
    }
    if of.told and of.depths[0]:
        config |= {"class_embed_type": "projection", "projection_class_embeddings_input_dim": of.told}
    elif of.told:
        told = {"addition_embed_type": "text_time", "addition_time_embed_dim": 256}
        config |= {**told, "projection_class_embeddings_input_dim": of.told}
    return config


def _vae_config(small: Small) -> dict[str, Any]:
    return {
        "block_out_channels": [32] * 4,
        "layers_per_block": 1,
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "scaling_factor": small.scale,
        "sample_size": 64,
    }


def _save_text(folder: Path, prefix: str, text: Text, weights: dict[str, Tensor], words: int, xl: bool) -> None:
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection

    # diffusers keeps those layers of Stable Diffusion 2's text encoder that are used.
    layers = text.layers - 1 if is_open(prefix) and not xl else text.layers
    config = CLIPTextConfig(
        vocab_size=words,
        hidden_size=text.width,
        intermediate_size=text.inner,
        num_hidden_layers=layers,
        num_attention_heads=1,
        hidden_act="gelu" if is_open(prefix) else "quick_gelu",
        projection_dim=text.projection or text.width,
        bos_token_id=words - 2,
        eos_token_id=words - 1,
    )
    own = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    converted = _split(own) if is_open(prefix) else own
    module = (CLIPTextModelWithProjection if xl and is_open(prefix) else CLIPTextModel)(config)
    wanted = module.state_dict()
    bare = {name.removeprefix("text_model."): tensor for name, tensor in converted.items()}
    _save(module, {name: bare[name.removeprefix("text_model.")] for name in wanted}, folder)


def _split(own: dict[str, Tensor]) -> dict[str, Tensor]:
    """OpenCLIP's weights as transformers has them, written out."""
    found = {
        "embeddings.token_embedding.weight": own["token_embedding.weight"],
        "embeddings.position_embedding.weight": own["positional_embedding"],
        "text_projection.weight": own["text_projection"].T.contiguous(),
    }
    for kind in ("weight", "bias"):
        found[f"final_layer_norm.{kind}"] = own[f"ln_final.{kind}"]
        for layer in range(sum(name.endswith("ln_1.weight") for name in own)):
            theirs, ours = f"transformer.resblocks.{layer}", f"encoder.layers.{layer}"
            for name, part in zip("qkv", own[f"{theirs}.attn.in_proj_{kind}"].chunk(3), strict=True):
                found[f"{ours}.self_attn.{name}_proj.{kind}"] = part.clone()
            for new, old in {
                "self_attn.out_proj": "attn.out_proj",
                "mlp.fc1": "mlp.c_fc",
                "mlp.fc2": "mlp.c_proj",
                "layer_norm1": "ln_1",
                "layer_norm2": "ln_2",
            }.items():
                found[f"{ours}.{new}.{kind}"] = own[f"{theirs}.{old}.{kind}"]
    return found


def _save(module: torch.nn.Module, weights: dict[str, Tensor], folder: Path) -> None:
    wanted = module.state_dict()
    module.load_state_dict({name: tensor.reshape(wanted[name].shape) for name, tensor in weights.items()})
    tiny_models.save(module, folder)
