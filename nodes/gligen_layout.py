"""GLIGEN's files: layers to be put into a U-Net's transformers, and what makes tokens of phrases in boxes."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from nodes.unet_layout import HEAD_WIDTH, HEADS
from nodes.weight_places import NetworkPlan, NotThisNetwork, Place, Shapes, shape_of

POSITIONS = "position_net."
OLDEST_WIDTH = 768
"""U-Nets that attend to texts up to this width have a fixed number of heads, as Stable Diffusion 1."""
_FUSER = re.compile(r"(?:model\.diffusion_model\.)?((?:input|middle|output)_block.*transformer_blocks\.\d+)\.fuser\.")


class Fuser(NamedTuple):
    """A layer of gated self-attention: the transformer block that it is for, in the original layout, and its sizes."""

    block: str
    width: int
    context: int
    heads: int


def gligen_plan(shapes: Shapes) -> NetworkPlan:
    """All of a file's layers: `fusers` and the widths of phrases and tokens. Raises NotThisNetwork."""
    if f"{POSITIONS}linears_image.0.weight" in shapes:
        raise NotThisNetwork("it is a GLIGEN that takes pictures in boxes, too, which is not supported")
    starts = {match[1]: name[: match.end()] for name in shapes if (match := _FUSER.match(name))}
    phrases = shape_of(shapes, f"{POSITIONS}null_positive_feature", 1)[0]
    out = shape_of(shapes, f"{POSITIONS}linears.4.weight", 2)[0]
    if not starts:
        raise NotThisNetwork("there is no input_blocks.1.1.transformer_blocks.0.fuser.linear.weight")
    fusers = [_fuser(shapes, block, start) for block, start in sorted(starts.items())]

    def places(name: str) -> tuple[Place, ...]:
        if not name.startswith("fusers."):
            return (Place(name),)
        _, number, rest = name.split(".", 2)
        return (Place(f"{starts[fusers[int(number)].block]}{rest}"),)

    return NetworkPlan({"fusers": fusers, "phrases": phrases, "tokens": out}, places)


def _fuser(shapes: Shapes, block: str, start: str) -> Fuser:
    width, context = shape_of(shapes, f"{start}linear.weight", 2)[:2]
    return Fuser(block, width, context, HEADS if context <= OLDEST_WIDTH else max(1, width // HEAD_WIDTH))


def attended_blocks(shapes: Shapes, original: Mapping[str, str]) -> dict[str, tuple[str, tuple[int, int]]]:
    """A U-Net's transformer blocks by their original names: diffusers' name, the width, and that of the text.

    Args:
        shapes: of the U-Net's weights, by diffusers' names.
        original: what diffusers' modules are called in the original layout.
    """
    end = ".attn2.to_k"
    found: dict[str, tuple[str, tuple[int, int]]] = {}
    for name, shape in shapes.items():
        module, _, kind = name.rpartition(".")
        if kind == "weight" and module.endswith(end) and len(shape) == 2:
            found[original[module].removesuffix(end)] = module.removesuffix(end), (shape[0], shape[1])
    return found


def phrase_width(config: Mapping[str, Any]) -> int:
    return config["phrases"]
