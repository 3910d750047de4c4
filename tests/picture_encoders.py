"""CLIP's picture encoders for tests: headers of full size from the published configurations, and tiny ones whole.

A tiny one comes in every layout with the same weights: a folder of transformers, a file, and OpenCLIP's file, which is
written out here and shares no code with what reads it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from tests.original_layouts import Shapes, linear, norm, write_weights
from tests.tiny_models import save, seed

SIDE, WIDTH, SPACE = 32, 32, 24
"""The tiny encoder's pictures, its hidden states, and the space that it shares with texts."""


@dataclass(frozen=True)
class Encoder:
    width: int
    layers: int
    inner: int
    space: int
    patch: int = 14
    places: int = 257


VIT_L = Encoder(1024, 24, 4096, 768)
VIT_H = Encoder(1280, 32, 5120, 1024)
VIT_BIG_G = Encoder(1664, 48, 8192, 1280)


def transformers_shapes(of: Encoder) -> Shapes:
    start = "vision_model.embeddings"
    shapes: Shapes = {
        f"{start}.class_embedding": (of.width,),
        f"{start}.patch_embedding.weight": (of.width, 3, of.patch, of.patch),
        f"{start}.position_embedding.weight": (of.places, of.width),
        f"{start}.position_ids": (1, of.places),
        "visual_projection.weight": (of.space, of.width),
    }
    for layer in range(of.layers):
        name = f"vision_model.encoder.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= linear(f"{name}.self_attn.{part}", of.width, of.width)
        shapes |= linear(f"{name}.mlp.fc1", of.inner, of.width) | linear(f"{name}.mlp.fc2", of.width, of.inner)
        shapes |= norm(f"{name}.layer_norm1", of.width) | norm(f"{name}.layer_norm2", of.width)
    return shapes | norm("vision_model.pre_layrnorm", of.width) | norm("vision_model.post_layernorm", of.width)


def open_clip_shapes(of: Encoder) -> Shapes:
    shapes: Shapes = {
        "visual.class_embedding": (of.width,),
        "visual.conv1.weight": (of.width, 3, of.patch, of.patch),
        "visual.positional_embedding": (of.places, of.width),
        "visual.proj": (of.width, of.space),
    }
    for layer in range(of.layers):
        name = f"visual.transformer.resblocks.{layer}"
        shapes |= {
            f"{name}.attn.in_proj_weight": (3 * of.width, of.width),
            f"{name}.attn.in_proj_bias": (3 * of.width,),
        }
        shapes |= linear(f"{name}.attn.out_proj", of.width, of.width)
        shapes |= linear(f"{name}.mlp.c_fc", of.inner, of.width) | linear(f"{name}.mlp.c_proj", of.width, of.inner)
        shapes |= norm(f"{name}.ln_1", of.width) | norm(f"{name}.ln_2", of.width)
    return shapes | norm("visual.ln_pre", of.width) | norm("visual.ln_post", of.width)


def tiny(layers: int = 3, space: int = SPACE) -> Any:
    """transformers' own network with random weights, always the same."""
    from transformers.models.clip.configuration_clip import CLIPVisionConfig
    from transformers.models.clip.modeling_clip import CLIPVisionModelWithProjection

    seed(5)
    config = CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=layers, num_attention_heads=1, projection_dim=space,
        image_size=SIDE, patch_size=8, hidden_act="quick_gelu",
    )  # fmt: skip
    return cast(Any, CLIPVisionModelWithProjection(config)).eval().requires_grad_(False)


def write_folder(folder: Path, encoder: Any) -> None:
    save(encoder, folder)


def write_file(path: Path, encoder: Any) -> None:
    write_weights(path, encoder.state_dict())


def as_open_clip(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A picture encoder's weights as OpenCLIP names them."""
    start, found = "vision_model", {"visual.proj": weights["visual_projection.weight"].T.contiguous()}
    for theirs, ours in {
        "class_embedding": "class_embedding",
        "conv1.weight": "patch_embedding.weight",
        "positional_embedding": "position_embedding.weight",
    }.items():
        found[f"visual.{theirs}"] = weights[f"{start}.embeddings.{ours}"]
    for kind in ("weight", "bias"):
        found[f"visual.ln_pre.{kind}"] = weights[f"{start}.pre_layrnorm.{kind}"]
        found[f"visual.ln_post.{kind}"] = weights[f"{start}.post_layernorm.{kind}"]
        for layer in range(sum(name.endswith("layer_norm1.weight") for name in weights)):
            theirs, ours = f"visual.transformer.resblocks.{layer}", f"{start}.encoder.layers.{layer}"
            thirds = [weights[f"{ours}.self_attn.{name}_proj.{kind}"] for name in "qkv"]
            found[f"{theirs}.attn.in_proj_{kind}"] = torch.cat(thirds)
            for new, old in {
                "attn.out_proj": "self_attn.out_proj",
                "mlp.c_fc": "mlp.fc1",
                "mlp.c_proj": "mlp.fc2",
                "ln_1": "layer_norm1",
                "ln_2": "layer_norm2",
            }.items():
                found[f"{theirs}.{new}.{kind}"] = weights[f"{ours}.{old}.{kind}"]
    return found
