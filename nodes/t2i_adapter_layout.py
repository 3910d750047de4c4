"""T2I-Adapters in the original layout and in diffusers': full ones, for SDXL too, and light ones (Mou et al. 2023)."""

from typing import Any

from nodes.weight_places import NameTable, NetworkPlan, NotThisNetwork, Place, Shapes, count, shape_of

FULL_MARK = "body.0.block1.weight"
LIGHT_MARK = "body.0.body.0.block1.weight"
DIFFUSERS_MARK = "adapter.body.0.resnets.0.block1.weight"
FACTORS = (8, 16)
"""Pixels of a side that are folded into one: 16 in adapters for SDXL."""
KNOWN_CHANNELS = (1, 3)
"""Of the picture: a drawing or colours."""


def adapter_plan(shapes: Shapes) -> NetworkPlan:
    """The T2I-Adapter that a file's names and shapes describe. Raises NotThisNetwork."""
    if DIFFUSERS_MARK in shapes:
        return NetworkPlan(_config(shapes), lambda name: (Place(name),))
    if LIGHT_MARK in shapes:
        table = _light_names(shapes)
    elif FULL_MARK in shapes:
        table = _full_names(shapes)
    else:
        raise NotThisNetwork(f"there is none of {FULL_MARK}, {LIGHT_MARK} and {DIFFUSERS_MARK}")
    config = _config({table.diffusers(name): shape for name, shape in shapes.items()})
    return NetworkPlan(config, lambda name: (Place(table.original(name)),))


def _light_names(shapes: Shapes) -> NameTable:
    pairs: dict[str, str] = {}
    for level in range(count(shapes, "body.{}.in_conv.weight")):
        pairs |= {f"adapter.body.{level}.{each}": f"body.{level}.{each}" for each in ("in_conv", "out_conv")}
        for block in range(count(shapes, f"body.{level}.body.{{}}.block1.weight")):
            pairs[f"adapter.body.{level}.resnets.{block}"] = f"body.{level}.body.{block}"
    return NameTable(pairs)


def _full_names(shapes: Shapes) -> NameTable:
    """The original layout counts blocks across levels; one level has as many as come before it grows wider."""
    blocks = count(shapes, "body.{}.block1.weight")
    layers = next((at for at in range(1, blocks) if f"body.{at}.in_conv.weight" in shapes), 2)
    pairs = {"adapter.conv_in": "conv_in"}
    for at in range(blocks):
        level, layer = divmod(at, layers)
        pairs[f"adapter.body.{level}.resnets.{layer}"] = f"body.{at}"
        if not layer:
            pairs[f"adapter.body.{level}.in_conv"] = f"body.{at}.in_conv"
    return NameTable(pairs)


def _config(shapes: Shapes) -> dict[str, Any]:
    """diffusers' configuration of an adapter whose shapes are given by diffusers' names."""
    levels = range(count(shapes, "adapter.body.{}.resnets.0.block1.weight"))
    layers = count(shapes, "adapter.body.0.resnets.{}.block1.weight")
    if "adapter.conv_in.weight" in shapes:
        channels, factor = _picture(shape_of(shapes, "adapter.conv_in.weight", 4)[1])
        name, kind = "adapter.body.{}.resnets.0.block1.weight", "full_adapter" if factor == 8 else "full_adapter_xl"
    else:
        channels, factor = _picture(shape_of(shapes, "adapter.body.0.in_conv.weight", 4)[1])
        # The last level of a light one is as wide as that before it, and is not counted.
        name, kind, levels = "adapter.body.{}.out_conv.weight", "light_adapter", levels[:-1]
    return {
        "in_channels": channels,
        "channels": [shape_of(shapes, name.format(level), 4)[0] for level in levels],
        "num_res_blocks": layers,
        "downscale_factor": factor,
        "adapter_type": kind,
    }


def _picture(folded: int) -> tuple[int, int]:
    """Channels of the picture, and how many pixels of a side were folded into one, by what came of both."""
    for channels in KNOWN_CHANNELS:
        for factor in FACTORS:
            if folded == channels * factor**2:
                return channels, factor
    known = ", ".join(f"{channels} x {factor} x {factor}" for channels in KNOWN_CHANNELS for factor in FACTORS)
    raise NotThisNetwork(f"it takes {folded} channels; known are {known}")
