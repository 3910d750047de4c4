"""ControlNets of Stable Diffusion in the original layout and in diffusers', and unions of several (Zhang et al. 2023).

A ControlNet is the first half of a U-Net with an input for a picture and an output at every skip connection. Those
that were distilled for SDXL leave out transformers, or all that stands in them; they exist in diffusers' layout alone.
"""

from typing import Any

from nodes.unet_layout import UnetStructure, heads, structure_of_original, told_config, unet_pairs
from nodes.weight_places import NameTable, NetworkPlan, NotThisNetwork, Place, Shapes, count, shape_of

ORIGINAL_MARK = "input_hint_block.0.weight"
DIFFUSERS_MARK = "controlnet_cond_embedding.conv_in.weight"
UNION_MARK = "task_embedding"
DIFFERENCE_MARK = "difference"
"""Stands in files that hold what a ControlNet adds to the weights of a model."""
UNION_HEADS = 8
"""Of the transformer in which a union looks at its pictures; it stands in no shape."""


def controlnet_plan(shapes: Shapes) -> NetworkPlan:
    """The ControlNet that a file's names and shapes describe. Raises NotThisNetwork."""
    if ORIGINAL_MARK in shapes:
        table = controlnet_names(structure_of_original(shapes), shapes)
        config = controlnet_config({table.diffusers(name): shape for name, shape in shapes.items()})
        return NetworkPlan(config, lambda name: (Place(table.original(name)),), _unused)
    if DIFFUSERS_MARK in shapes:
        return NetworkPlan(controlnet_config(shapes), lambda name: (Place(name),), _unused)
    raise NotThisNetwork(f"there is neither {ORIGINAL_MARK} nor {DIFFUSERS_MARK}")


def controlnet_names(structure: UnetStructure, shapes: Shapes) -> NameTable:
    """Module names of a ControlNet in both layouts. In the original one every second module of the hint is a SiLU.

    Args:
        shapes: by the original names.
    """
    last = 0
    while f"input_hint_block.{last + 2}.weight" in shapes:
        last += 2
    pairs = unet_pairs(structure)
    pairs["controlnet_cond_embedding.conv_in"] = "input_hint_block.0"
    pairs["controlnet_cond_embedding.conv_out"] = f"input_hint_block.{last}"
    for at, number in enumerate(range(2, last, 2)):
        pairs[f"controlnet_cond_embedding.blocks.{at}"] = f"input_hint_block.{number}"
    for at in {name.split(".")[1] for name in shapes if name.startswith("zero_convs.")}:
        pairs[f"controlnet_down_blocks.{at}"] = f"zero_convs.{at}.0"
    pairs["controlnet_mid_block"] = "middle_block_out.0"
    return NameTable(pairs)


def controlnet_config(shapes: Shapes) -> dict[str, Any]:
    """diffusers' configuration of a ControlNet whose shapes are given by diffusers' names. Raises NotThisNetwork."""
    levels = range(count(shapes, "down_blocks.{}.resnets.0.conv1.weight"))
    if not levels:
        raise NotThisNetwork("there is no down_blocks.0.resnets.0.conv1.weight")
    widths = [shape_of(shapes, f"down_blocks.{level}.resnets.0.conv1.weight", 4)[0] for level in levels]
    attended = [f"down_blocks.{level}.attentions.0.norm.weight" in shapes for level in levels]
    blocks = "attentions.0.transformer_blocks.{}.norm1.weight"
    middle = count(shapes, f"mid_block.{blocks}")
    depths = [count(shapes, f"down_blocks.{level}.{blocks}") if attended[level] else 1 for level in levels[:-1]]
    config: dict[str, Any] = {
        "in_channels": shape_of(shapes, "conv_in.weight", 4)[1],
        "conditioning_channels": shape_of(shapes, DIFFUSERS_MARK, 4)[1],
        "conditioning_embedding_out_channels": _hint_widths(shapes),
        "block_out_channels": widths,
        "layers_per_block": count(shapes, "down_blocks.0.resnets.{}.conv1.weight"),
        "down_block_types": ["CrossAttnDownBlock2D" if each else "DownBlock2D" for each in attended],
        "transformer_layers_per_block": [*depths, middle],
    }
    projection = next((name for name in sorted(shapes) if name.endswith(".attentions.0.proj_in.weight")), None)
    linear = projection is None or len(shapes[projection]) == 2
    config |= {"use_linear_projection": linear, "attention_head_dim": heads(widths, linear=linear)}
    asked = next((name for name in sorted(shapes) if name.endswith(".transformer_blocks.0.attn2.to_k.weight")), None)
    config["cross_attention_dim"] = None if asked is None else shape_of(shapes, asked, 2)[1]
    if UNION_MARK in shapes:
        config |= _union(shapes)
    elif "mid_block.attentions.0.norm.weight" not in shapes:
        config["mid_block_type"] = "UNetMidBlock2D"
    return config | told_config(shapes)


def _hint_widths(shapes: Shapes) -> list[int]:
    """How wide the picture is made, from one halving of its resolution to the next."""
    inner = [
        shape_of(shapes, f"controlnet_cond_embedding.blocks.{at}.weight", 4)[0]
        for at in range(1, count(shapes, "controlnet_cond_embedding.blocks.{}.weight"), 2)
    ]
    return [shape_of(shapes, DIFFUSERS_MARK, 4)[0], *inner]


def _union(shapes: Shapes) -> dict[str, Any]:
    kinds, width, *_ = shape_of(shapes, UNION_MARK, 2)
    return {
        "num_control_type": kinds,
        "num_trans_channel": width,
        "num_trans_head": UNION_HEADS,
        "num_trans_layer": count(shapes, "transformer_layes.{}.attn.in_proj_weight"),
        "num_proj_channel": shape_of(shapes, "spatial_ch_projs.weight", 2)[0],
        "addition_time_embed_dim": shape_of(shapes, "control_add_embedding.linear_1.weight", 2)[1] // kinds,
    }


def _unused(name: str) -> bool:
    return name == DIFFERENCE_MARK
