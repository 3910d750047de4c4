"""Transformers of Flux (Black Forest Labs 2024) in the original layout and in diffusers'.

All but the shares of rotary positions stands in the shapes; those are an eighth of a head's width, and half of the rest
for each side of a picture.
"""

from typing import Any

from nodes.scaled_weights import is_beside_weights
from nodes.weight_places import NetworkPlan, NotThisNetwork, Place, Shapes, count, placed, shape_of, tabulated

CLASS = "FluxTransformer2DModel"
ORIGINAL_MARKS = ("double_blocks.0.img_attn.qkv.weight", "single_blocks.0.linear1.weight", "vector_in.in_layer.weight")
DIFFUSERS_MARKS = (
    "transformer_blocks.0.attn.add_k_proj.weight",
    "single_transformer_blocks.0.proj_mlp.weight",
    "time_text_embed.text_embedder.linear_1.weight",
)
INPUTS = ("img_in.weight", "x_embedder.weight")
"""Into the original layout's network and diffusers': a matrix, where relatives have a convolution."""

_AROUND = {
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "context_embedder": "txt_in",
    "x_embedder": "img_in",
    "proj_out": "final_layer.linear",
}
_DOUBLE = {
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
}
_FUSED = {
    "img_attn": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}
_NORMS = {
    "attn.norm_q": "img_attn.norm.query_norm",
    "attn.norm_k": "img_attn.norm.key_norm",
    "attn.norm_added_q": "txt_attn.norm.query_norm",
    "attn.norm_added_k": "txt_attn.norm.key_norm",
}
_SINGLE = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")


def is_flux(shapes: Shapes) -> bool:
    """Whether names are those of such a transformer, in either layout."""
    marked = any(all(mark in shapes for mark in marks) for marks in (ORIGINAL_MARKS, DIFFUSERS_MARKS))
    return marked and any(len(shapes.get(name, ())) == 2 for name in INPUTS)


def flux_plan(shapes: Shapes) -> NetworkPlan:
    """The transformer that a file's names and shapes describe. Raises NotThisNetwork."""
    if ORIGINAL_MARKS[0] in shapes:
        table = original_places(shapes)
        return NetworkPlan(
            _config(placed(shapes, table)), lambda name: (table.get(name, Place(name)),), is_beside_weights
        )
    return NetworkPlan(_config(shapes), lambda name: (Place(name),), is_beside_weights)


def original_places(shapes: Shapes) -> dict[str, Place]:
    """Where the weights lie in a file in the original layout, by diffusers' names. Raises NotThisNetwork."""
    width = shape_of(shapes, INPUTS[0], 2)[0]
    inner = shape_of(shapes, ORIGINAL_MARKS[1], 2)[0] - 3 * width
    if inner <= 0:
        raise NotThisNetwork(f"{ORIGINAL_MARKS[1]} has too few rows for a network {width} wide")
    doubles, singles = (count(shapes, f"{kind}_blocks.{{}}.{end}") for kind, end in _COUNTED.items())
    return flux_places(doubles, singles, (width, width, width, inner))


_COUNTED = {"double": "img_attn.qkv.weight", "single": "linear1.weight"}


def flux_places(doubles: int, singles: int, shares: tuple[int, ...]) -> dict[str, Place]:
    """Where the weights of so many blocks of both kinds lie in the original layout, by diffusers' names.

    Args:
        shares: of queries, keys, values and what becomes the inner layer in the one matrix of a single block.
    """
    modules = {ours: Place(theirs) for ours, theirs in _AROUND.items()}
    norms: dict[str, str] = {}
    for block in range(doubles):
        ours, theirs = f"transformer_blocks.{block}", f"double_blocks.{block}"
        modules |= {f"{ours}.{new}": Place(f"{theirs}.{old}") for new, old in _DOUBLE.items()}
        norms |= {f"{ours}.{new}": f"{theirs}.{old}" for new, old in _NORMS.items()}
        for side, names in _FUSED.items():
            fused = Place(f"{theirs}.{side}.qkv", (1, 1, 1))
            modules |= {f"{ours}.{name}": fused._replace(taken=(at,)) for at, name in enumerate(names)}
    for block in range(singles):
        ours, theirs = f"single_transformer_blocks.{block}", f"single_blocks.{block}"
        modules |= {
            f"{ours}.norm.linear": Place(f"{theirs}.modulation.lin"),
            f"{ours}.proj_out": Place(f"{theirs}.linear2"),
        }
        fused = Place(f"{theirs}.linear1", shares)
        modules |= {f"{ours}.{name}": fused._replace(taken=(at,)) for at, name in enumerate(_SINGLE)}
        norms |= {
            f"{ours}.attn.norm_{end}": f"{theirs}.norm.{kind}_norm" for end, kind in (("q", "query"), ("k", "key"))
        }
    # The original says how to shift before how to scale, where diffusers' module is told the other way round.
    modules["norm_out.linear"] = Place("final_layer.adaLN_modulation.1", (1, 1), (1, 0))
    scales = {f"{ours}.weight": Place(f"{theirs}.scale") for ours, theirs in norms.items()}
    return {**tabulated(modules), **scales}


def _config(shapes: Shapes) -> dict[str, Any]:
    """diffusers' configuration of a transformer whose shapes are given by diffusers' names. Raises NotThisNetwork."""
    width, channels = shape_of(shapes, "x_embedder.weight", 2)[:2]
    head = shape_of(shapes, "transformer_blocks.0.attn.norm_q.weight", 1)[0]
    turn = head // 8
    return {
        "_class_name": CLASS,
        "in_channels": channels,
        "out_channels": shape_of(shapes, "proj_out.weight", 2)[0],
        "num_layers": count(shapes, "transformer_blocks.{}.attn.to_q.weight"),
        "num_single_layers": count(shapes, "single_transformer_blocks.{}.attn.to_q.weight"),
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": shape_of(shapes, "context_embedder.weight", 2)[1],
        "pooled_projection_dim": shape_of(shapes, "time_text_embed.text_embedder.linear_1.weight", 2)[1],
        "guidance_embeds": "time_text_embed.guidance_embedder.linear_1.weight" in shapes,
        "axes_dims_rope": (turn, (head - turn) // 2, (head - turn) // 2),
    }
