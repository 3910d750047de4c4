"""Autoencoders of Stable Diffusion in the original layout and in diffusers', old and new."""

from typing import Any

from nodes.weight_places import NameTable, NetworkPlan, NotThisNetwork, Place, Shapes, count, shape_of

ORIGINAL_MARK = "encoder.down.0.block.0.conv1.weight"
DIFFUSERS_MARK = "encoder.down_blocks.0.resnets.0.conv1.weight"

_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_BEFORE_2023 = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
_NOT_USED = ("loss.", "model_ema.")


def vae_plan(shapes: Shapes) -> NetworkPlan:
    """The autoencoder that a file's names and shapes describe. Raises NotThisNetwork."""
    if ORIGINAL_MARK in shapes:
        levels = count(shapes, "encoder.down.{}.block.0.conv1.weight")
        layers = count(shapes, "encoder.down.0.block.{}.conv1.weight")
        table = vae_names(levels, layers)
        config = vae_config({table.diffusers(name): shape for name, shape in shapes.items()})
        return NetworkPlan(config, lambda name: (Place(table.original(name)),), _unused)
    if DIFFUSERS_MARK in shapes:
        return NetworkPlan(vae_config(shapes), diffusers_places, _unused)
    raise NotThisNetwork(f"there is neither {ORIGINAL_MARK} nor {DIFFUSERS_MARK}")


def diffusers_places(name: str) -> tuple[Place, ...]:
    """A weight by diffusers' name of today, and by that of before 2023."""
    for new, old in _BEFORE_2023.items():
        for kind in ("weight", "bias"):
            if name.endswith(f".attentions.0.{new}.{kind}"):
                return Place(name), Place(f"{name.removesuffix(f'{new}.{kind}')}{old}.{kind}")
    return (Place(name),)


def vae_names(levels: int, layers: int) -> NameTable:
    """Module names of an autoencoder in both layouts."""
    pairs: dict[str, str] = {}
    for level in range(levels):
        mirrored = levels - 1 - level
        for layer in range(layers):
            pairs |= _resnet(f"encoder.down_blocks.{level}.resnets.{layer}", f"encoder.down.{level}.block.{layer}")
        for layer in range(layers + 1):
            pairs |= _resnet(f"decoder.up_blocks.{level}.resnets.{layer}", f"decoder.up.{mirrored}.block.{layer}")
        pairs[f"encoder.down_blocks.{level}.downsamplers.0.conv"] = f"encoder.down.{level}.downsample.conv"
        pairs[f"decoder.up_blocks.{level}.upsamplers.0.conv"] = f"decoder.up.{mirrored}.upsample.conv"
    for side in ("encoder", "decoder"):
        pairs |= _resnet(f"{side}.mid_block.resnets.0", f"{side}.mid.block_1")
        pairs |= _resnet(f"{side}.mid_block.resnets.1", f"{side}.mid.block_2")
        for ours, theirs in _ATTENTION.items():
            pairs[f"{side}.mid_block.attentions.0.{ours}"] = f"{side}.mid.attn_1.{theirs}"
        pairs[f"{side}.conv_norm_out"] = f"{side}.norm_out"
    return NameTable(pairs)


def _resnet(diffusers: str, original: str) -> dict[str, str]:
    return {diffusers: original, f"{diffusers}.conv_shortcut": f"{original}.nin_shortcut"}


def vae_config(shapes: Shapes) -> dict[str, Any]:
    """diffusers' configuration of an autoencoder whose shapes are given by diffusers' names. Raises NotThisNetwork."""
    levels = count(shapes, "encoder.down_blocks.{}.resnets.0.conv1.weight")
    return {
        "in_channels": shape_of(shapes, "encoder.conv_in.weight", 4)[1],
        "out_channels": shape_of(shapes, "decoder.conv_out.weight", 4)[0],
        "latent_channels": shape_of(shapes, "decoder.conv_in.weight", 4)[1],
        "block_out_channels": [
            shape_of(shapes, f"encoder.down_blocks.{level}.resnets.0.conv1.weight", 4)[0] for level in range(levels)
        ],
        "layers_per_block": count(shapes, "encoder.down_blocks.0.resnets.{}.conv1.weight"),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
    }


def _unused(name: str) -> bool:
    return name.startswith(_NOT_USED)
