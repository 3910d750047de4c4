"""U-Nets of Stable Diffusion in the original layout and in diffusers': their names, and a configuration from shapes.

Nothing is looked up by family: widths, depths and the text's width stand in the shapes, so that a network of any width
is understood. Only the number of attention heads does not; it follows from the kind of projection (8 heads with 1x1
convolutions, as in Stable Diffusion 1; heads of 64 with matrices, as in all later ones).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from nodes.weight_places import NameTable, NetworkPlan, NotThisNetwork, Place, Shapes, count, shape_of

ORIGINAL_MARK = "input_blocks.0.0.weight"
DIFFUSERS_MARK = "down_blocks.0.resnets.0.conv1.weight"
HEADS = 8
HEAD_WIDTH = 64
SIZE_WIDTH = 256
"""Numbers that each of SDXL's sizes is told in."""

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_AROUND = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


class UnetStructure(NamedTuple):
    """Residual blocks at each level, and how many transformer blocks follow one: at each level, and in the middle."""

    layers: int
    depths: tuple[int, ...]
    middle: int


def unet_plan(shapes: Shapes) -> NetworkPlan:
    """The U-Net that a file's names and shapes describe. Raises NotThisNetwork."""
    if ORIGINAL_MARK in shapes:
        structure = structure_of_original(shapes)
        table = unet_names(structure)
        named = {table.diffusers(name): shape for name, shape in shapes.items()}
        return NetworkPlan(unet_config(structure, named), lambda name: (Place(table.original(name)),))
    if DIFFUSERS_MARK in shapes:
        return NetworkPlan(unet_config(structure_of_diffusers(shapes), shapes), lambda name: (Place(name),))
    raise NotThisNetwork(f"there is neither {ORIGINAL_MARK} nor {DIFFUSERS_MARK}")


def unet_names(structure: UnetStructure) -> NameTable:
    """Module names of a U-Net of this structure in both layouts."""
    return NameTable(unet_pairs(structure))


def unet_pairs(structure: UnetStructure) -> dict[str, str]:
    """Module names of a U-Net of this structure: diffusers', and the original ones."""
    pairs = {**_AROUND, **{f"{_label(structure)}.linear_{at + 1}": f"label_emb.0.{2 * at}" for at in (0, 1)}}
    number, last = 1, len(structure.depths) - 1
    for level, depth in enumerate(structure.depths):
        for layer in range(structure.layers):
            pairs |= _resnet(f"down_blocks.{level}.resnets.{layer}", f"input_blocks.{number}.0")
            if depth:
                pairs[f"down_blocks.{level}.attentions.{layer}"] = f"input_blocks.{number}.1"
            number += 1
        if level != last:
            pairs[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{number}.0.op"
            number += 1
    pairs |= _resnet("mid_block.resnets.0", "middle_block.0")
    pairs["mid_block.attentions.0"] = "middle_block.1"
    pairs |= _resnet("mid_block.resnets.1", "middle_block.2")
    number = 0
    for level, depth in enumerate(reversed(structure.depths)):
        for layer in range(structure.layers + 1):
            pairs |= _resnet(f"up_blocks.{level}.resnets.{layer}", f"output_blocks.{number}.0")
            if depth:
                pairs[f"up_blocks.{level}.attentions.{layer}"] = f"output_blocks.{number}.1"
            if layer == structure.layers and level != last:
                pairs[f"up_blocks.{level}.upsamplers.0.conv"] = f"output_blocks.{number}.{2 if depth else 1}.conv"
            number += 1
    return pairs


def _label(structure: UnetStructure) -> str:
    """What diffusers calls the input for numbers: unCLIP's is one for classes, and attends at the first level."""
    return "class_embedding" if structure.depths[0] else "add_embedding"


def _resnet(diffusers: str, original: str) -> dict[str, str]:
    return {f"{diffusers}.{ours}": f"{original}.{theirs}" for ours, theirs in _RESNET.items()}


def structure_of_original(shapes: Shapes) -> UnetStructure:
    levels: list[list[int]] = [[]]
    number = 1
    while True:
        if f"input_blocks.{number}.0.in_layers.2.weight" in shapes:
            levels[-1].append(count(shapes, f"input_blocks.{number}.1.transformer_blocks.{{}}.norm1.weight"))
        elif f"input_blocks.{number}.0.op.weight" in shapes:
            levels.append([])
        else:
            break
        number += 1
    return _structure(levels, count(shapes, "middle_block.1.transformer_blocks.{}.norm1.weight"))


def structure_of_diffusers(shapes: Shapes) -> UnetStructure:
    levels = [
        [
            count(shapes, f"down_blocks.{level}.attentions.{layer}.transformer_blocks.{{}}.norm1.weight")
            for layer in range(count(shapes, f"down_blocks.{level}.resnets.{{}}.conv1.weight"))
        ]
        for level in range(count(shapes, "down_blocks.{}.resnets.0.conv1.weight"))
    ]
    return _structure(levels, count(shapes, "mid_block.attentions.0.transformer_blocks.{}.norm1.weight"))


def _structure(levels: Sequence[Sequence[int]], middle: int) -> UnetStructure:
    if not levels or not all(levels):
        raise NotThisNetwork("a level of the U-Net has no residual blocks")
    if len({len(level) for level in levels}) > 1 or any(len(set(level)) > 1 for level in levels):
        raise NotThisNetwork(
            f"the blocks of the U-Net are unlike: their transformers are {list(map(list, levels))} deep"
        )
    depths = tuple(level[0] for level in levels)
    if not any(depths) or not middle:
        raise NotThisNetwork("the U-Net has no attention to a text, at any level or in the middle")
    if depths[-1] not in (0, middle):
        raise NotThisNetwork(f"transformers are {middle} deep in the middle and {depths[-1]} at the level before it")
    return UnetStructure(len(levels[0]), depths, middle)


def unet_config(structure: UnetStructure, shapes: Shapes) -> dict[str, Any]:
    """diffusers' configuration of a U-Net whose shapes are given by diffusers' names. Raises NotThisNetwork."""
    depths = structure.depths
    widths = [shape_of(shapes, f"down_blocks.{level}.resnets.0.conv1.weight", 4)[0] for level in range(len(depths))]
    attended = f"down_blocks.{next(level for level, depth in enumerate(depths) if depth)}.attentions.0"
    linear = len(shape_of(shapes, f"{attended}.proj_in.weight", 2)) == 2
    config: dict[str, Any] = {
        "in_channels": shape_of(shapes, "conv_in.weight", 4)[1],
        "out_channels": shape_of(shapes, "conv_out.weight", 4)[0],
        "block_out_channels": widths,
        "layers_per_block": structure.layers,
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)],
        "transformer_layers_per_block": [*(depth or 1 for depth in depths[:-1]), structure.middle],
        "cross_attention_dim": shape_of(shapes, f"{attended}.transformer_blocks.0.attn2.to_k.weight", 2)[1],
        "attention_head_dim": heads(widths, linear=linear),
        "use_linear_projection": linear,
    }
    return config | told_config(shapes)


def heads(widths: Sequence[int], *, linear: bool) -> list[int] | int:
    """What diffusers calls the width of a head: how many there are, at each level or everywhere."""
    return [max(1, width // HEAD_WIDTH) for width in widths] if linear else HEADS


def told_config(shapes: Shapes) -> dict[str, Any]:
    """The part of a configuration that says what a network is told beside the text, if anything."""
    if "class_embedding.linear_1.weight" in shapes:
        numbers = shape_of(shapes, "class_embedding.linear_1.weight", 2)[1]
        return {"class_embed_type": "projection", "projection_class_embeddings_input_dim": numbers}
    if "add_embedding.linear_1.weight" not in shapes:
        return {}
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": SIZE_WIDTH,
        "projection_class_embeddings_input_dim": shape_of(shapes, "add_embedding.linear_1.weight", 2)[1],
    }
