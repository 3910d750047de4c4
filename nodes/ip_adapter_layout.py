"""IP-Adapters' files: which design one is of, how its picture projection is built, and where its keys and values are.

What projects pictures into tokens stands below `image_proj.`, keys and values for each cross-attention of a U-Net below
`ip_adapter.`, numbered as diffusers goes through them: on the way down, on the way up, in the middle.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from nodes.weight_places import NetworkPlan, NotThisNetwork, Place, Shape, Shapes, count, shape_of

Design = Literal["base", "plus", "full face"]
"""Tokens made of the picture as a whole; asked from its parts by a few queries; or one of each part."""

PICTURES, ATTENTION = "image_proj.", "ip_adapter."
HEAD_WIDTH = 64
FACE_ID = "FaceID"
_FACE_ID = "_lora.down.weight"
"""Adapters for faces change the U-Net itself, too, and are told by another network who it is."""

_BLOCK = {
    "ln0": "0.norm1",
    "ln1": "0.norm2",
    "attn.to_q": "0.to_q",
    "attn.to_out.0": "0.to_out",
    "ff.0": "1.0",
    "ff.1.net.0.proj": "1.1",
    "ff.1.net.2": "1.3",
}
_BASE = {"image_embeds": "proj"}
_FULL = {"ff.net.0.proj": "proj.0", "ff.net.2": "proj.2", "norm": "proj.3"}
_CROSS = re.compile(r"(down|up|mid)_blocks?\.(?:(\d+)\.)?attentions\.(\d+)\.transformer_blocks\.(\d+)\.attn2")
_WAY = ("down", "up", "mid")


def design_of(shapes: Shapes) -> Design:
    """The design of an adapter, by the names of its projection. Raises NotThisNetwork."""
    if "latents" in shapes:
        return "plus"
    if "proj.weight" in shapes:
        return "base"
    if "proj.3.weight" in shapes:
        return "full face"
    raise NotThisNetwork(f"there is no {PICTURES}proj.weight, {PICTURES}proj.3.weight or {PICTURES}latents")


def is_for_faces(names: Iterable[str]) -> bool:
    """Whether a file is an adapter for faces."""
    return any(name.startswith(ATTENTION) and name.endswith(_FACE_ID) for name in names)


def projection_plan(shapes: Shapes) -> NetworkPlan:
    """What makes tokens of pictures; `design` stands beside the arguments. Raises NotThisNetwork."""
    design = design_of(shapes)
    match design:
        case "base":
            width = shape_of(shapes, "norm.weight", 1)[0]
            rows, seen = shape_of(shapes, "proj.weight", 2)[:2]
            config: dict[str, Any] = {
                "image_embed_dim": seen,
                "num_image_text_embeds": rows // width,
                "cross_attention_dim": width,
            }
            return NetworkPlan({"design": design, **config}, lambda name: _renamed(name, _BASE))
        case "full face":
            width = shape_of(shapes, "proj.3.weight", 1)[0]
            config = {"image_embed_dim": shape_of(shapes, "proj.0.weight", 2)[1], "cross_attention_dim": width}
            return NetworkPlan({"design": design, **config}, lambda name: _renamed(name, _FULL))
        case "plus":
            _, queries, inner = shape_of(shapes, "latents", 3)[:3]
            config = {
                "embed_dims": shape_of(shapes, "proj_in.weight", 2)[1],
                "output_dims": shape_of(shapes, "proj_out.weight", 2)[0],
                "hidden_dims": inner,
                "depth": count(shapes, "layers.{}.0.to_q.weight"),
                "heads": max(1, shape_of(shapes, "layers.0.0.to_q.weight", 2)[0] // HEAD_WIDTH),
                "num_queries": queries,
                "ffn_ratio": shape_of(shapes, "layers.0.1.1.weight", 2)[0] // inner,
            }
            return NetworkPlan({"design": design, **config}, _of_resampler)


def _renamed(name: str, names: Mapping[str, str]) -> tuple[Place, ...]:
    module, _, kind = name.rpartition(".")
    return (Place(f"{names.get(module, module)}.{kind}"),)


def _of_resampler(name: str) -> tuple[Place, ...]:
    if not name.startswith("layers."):
        return (Place(name),)
    _, number, inner = name.split(".", 2)
    module, _, kind = inner.rpartition(".")
    if module in ("attn.to_k", "attn.to_v"):
        return (Place(f"layers.{number}.0.to_kv.weight", (1, 1), (int(module == "attn.to_v"),)),)
    return (Place(f"layers.{number}.{_BLOCK.get(module, module)}.{kind}"),)


def key_shapes(shapes: Shapes) -> list[Shape]:
    """The shapes of the keys, one attention after the other; those of values are alike. Raises NotThisNetwork."""
    found: list[Shape] = []
    while (name := f"{attention_name(len(found))}.to_k_ip.weight") in shapes:
        keys, values = shape_of(shapes, name, 2), shape_of(shapes, name.replace("to_k", "to_v"), 2)
        if keys != values:
            raise NotThisNetwork(f"{ATTENTION}{name} is {list(keys)}, and the values beside it are {list(values)}")
        found.append(keys)
    if not found:
        raise NotThisNetwork(f"there is no {ATTENTION}1.to_k_ip.weight")
    return found


def attention_name(at: int) -> str:
    """What the attention at a place is called: numbers count self-attention, too."""
    return str(2 * at + 1)


def cross_attentions(names: Iterable[str]) -> list[str]:
    """The cross-attention modules among a U-Net's names in diffusers' layout, as adapters count them."""
    found = {match[0]: match for name in names if (match := _CROSS.match(name))}
    return sorted(
        found, key=lambda name: (_WAY.index(found[name][1]), *(int(part or 0) for part in found[name].groups()[1:]))
    )
