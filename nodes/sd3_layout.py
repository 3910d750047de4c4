"""Transformers of Stable Diffusion 3 and 3.5 (Esser et al. 2024) in the original layout and in diffusers'.

Widths, depths, the norms of queries and keys and the blocks that attend twice stand in the shapes. Only the width of an
attention head does not where there are no such norms: it is 64 in all of them.
"""

from math import isqrt
from typing import Any

from nodes.scaled_weights import is_beside_weights
from nodes.weight_places import NetworkPlan, Place, Shapes, count, placed, shape_of, tabulated

CLASS = "SD3Transformer2DModel"
ORIGINAL_MARKS = ("joint_blocks.0.x_block.attn.qkv.weight", "y_embedder.mlp.0.weight", "pos_embed")
DIFFUSERS_MARKS = ("transformer_blocks.0.attn.add_k_proj.weight", "pos_embed.pos_embed", "pos_embed.proj.weight")
COUNTED = "x_block.attn.qkv.weight"
HEAD_WIDTH = 64

_AROUND = {
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "context_embedder": "context_embedder",
    "proj_out": "final_layer.linear",
}
_SIDES = {
    "x_block": {
        "norm1.linear": "adaLN_modulation.1",
        "attn.norm_q": "attn.ln_q",
        "attn.norm_k": "attn.ln_k",
        "attn.to_out.0": "attn.proj",
        "attn2.norm_q": "attn2.ln_q",
        "attn2.norm_k": "attn2.ln_k",
        "attn2.to_out.0": "attn2.proj",
        "ff.net.0.proj": "mlp.fc1",
        "ff.net.2": "mlp.fc2",
    },
    "context_block": {
        "norm1_context.linear": "adaLN_modulation.1",
        "attn.norm_added_q": "attn.ln_q",
        "attn.norm_added_k": "attn.ln_k",
        "attn.to_add_out": "attn.proj",
        "ff_context.net.0.proj": "mlp.fc1",
        "ff_context.net.2": "mlp.fc2",
    },
}
_FUSED = {
    "x_block.attn": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "x_block.attn2": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
    "context_block.attn": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}


def is_sd3(shapes: Shapes) -> bool:
    """Whether names are those of such a transformer, in either layout."""
    return any(all(mark in shapes for mark in marks) for marks in (ORIGINAL_MARKS, DIFFUSERS_MARKS))


def sd3_plan(shapes: Shapes) -> NetworkPlan:
    """The transformer that a file's names and shapes describe. Raises NotThisNetwork."""
    if ORIGINAL_MARKS[0] in shapes:
        table = sd3_places(count(shapes, f"joint_blocks.{{}}.{COUNTED}"))
        return NetworkPlan(
            _config(placed(shapes, table)), lambda name: (table.get(name, Place(name)),), is_beside_weights
        )
    return NetworkPlan(_config(shapes), lambda name: (Place(name),), is_beside_weights)


def sd3_places(blocks: int) -> dict[str, Place]:
    """Where the weights of a transformer of so many blocks lie in the original layout, by diffusers' names."""
    modules = {ours: Place(theirs) for ours, theirs in _AROUND.items()}
    for block in range(blocks):
        ours, theirs = f"transformer_blocks.{block}", f"joint_blocks.{block}"
        for side, names in _SIDES.items():
            modules |= {f"{ours}.{new}": Place(f"{theirs}.{side}.{old}") for new, old in names.items()}
        for attention, names in _FUSED.items():
            fused = Place(f"{theirs}.{attention}.qkv", (1, 1, 1))
            modules |= {f"{ours}.{name}": fused._replace(taken=(at,)) for at, name in enumerate(names)}
    # The original says how to shift before how to scale, where diffusers' module is told the other way round.
    last = f"joint_blocks.{blocks - 1}.context_block.adaLN_modulation.1"
    modules[f"transformer_blocks.{blocks - 1}.norm1_context.linear"] = Place(last, (1, 1), (1, 0))
    modules["norm_out.linear"] = Place("final_layer.adaLN_modulation.1", (1, 1), (1, 0))
    return {"pos_embed.pos_embed": Place("pos_embed"), **tabulated(modules)}


def _config(shapes: Shapes) -> dict[str, Any]:
    """diffusers' configuration of a transformer whose shapes are given by diffusers' names. Raises NotThisNetwork."""
    width, channels, patch = shape_of(shapes, "pos_embed.proj.weight", 4)[:3]
    captions, tokens = shape_of(shapes, "context_embedder.weight", 2)[:2]
    normed = "transformer_blocks.0.attn.norm_q.weight" in shapes
    head = shape_of(shapes, "transformer_blocks.0.attn.norm_q.weight", 1)[0] if normed else HEAD_WIDTH
    blocks = count(shapes, "transformer_blocks.{}.attn.to_q.weight")
    return {
        "_class_name": CLASS,
        "patch_size": patch,
        "in_channels": channels,
        "out_channels": shape_of(shapes, "proj_out.weight", 2)[0] // patch**2,
        "num_layers": blocks,
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": tokens,
        "caption_projection_dim": captions,
        "pooled_projection_dim": shape_of(shapes, "time_text_embed.text_embedder.linear_1.weight", 2)[1],
        "pos_embed_max_size": isqrt(shape_of(shapes, "pos_embed.pos_embed", 3)[1]),
        "dual_attention_layers": tuple(
            block for block in range(blocks) if f"transformer_blocks.{block}.attn2.to_q.weight" in shapes
        ),
        "qk_norm": "rms_norm" if normed else None,
    }
