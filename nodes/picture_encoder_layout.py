"""CLIP's picture encoders as transformers and as OpenCLIP name their weights, and a configuration from shapes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from nodes.safetensors_header import TensorEntry
from nodes.siglip_layout import MARK as SIGLIP_MARK
from nodes.siglip_layout import MODEL_TYPE, siglip_plan
from nodes.text_layout import open_clip_layer
from nodes.weight_places import NetworkPlan, NotThisNetwork, Place, Shapes, count, shape_of, shapes_below

TRANSFORMERS_MARK = "vision_model.embeddings.patch_embedding.weight"
OPEN_MARK = "visual.conv1.weight"
PREFIXES = ("", "embedder.model.", "clip_vision.")
"""How the names of a picture encoder may start in a file: `embedder` is that of unCLIP checkpoints."""
PROJECTION = "visual_projection.weight"


class Size(NamedTuple):
    """What the field calls a picture encoder of some width, and its attention heads."""

    name: str
    heads: int


SIZES: Mapping[int, Size] = {
    768: Size("ViT-B", 12),
    1024: Size("ViT-L", 16),
    1280: Size("ViT-H", 16),
    1408: Size("ViT-g", 16),
    1664: Size("ViT-bigG", 16),
}
HEAD_WIDTH = 64
"""Of encoders of other widths."""
BY_OPENAI = 1024
"""Up to this width they are taken for OpenAI's, which have another activation than OpenCLIP's."""

_AROUND = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": OPEN_MARK,
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    **{f"vision_model.pre_layrnorm.{kind}": f"visual.ln_pre.{kind}" for kind in ("weight", "bias")},
    **{f"vision_model.post_layernorm.{kind}": f"visual.ln_post.{kind}" for kind in ("weight", "bias")},
}


def find_picture_encoder(names: Mapping[str, object]) -> str | None:
    """How the names of a file's picture encoder start; None: it has none."""
    found = (prefix for prefix in PREFIXES if {prefix + TRANSFORMERS_MARK, prefix + OPEN_MARK} & set(names))
    return next(found, None)


def picture_encoder_plan(shapes: Shapes) -> NetworkPlan:
    """The picture encoder that a file's names and shapes describe. Raises NotThisNetwork."""
    if SIGLIP_MARK in shapes:
        return siglip_plan(shapes)
    if TRANSFORMERS_MARK in shapes:
        places = transformers_places
        layers = count(shapes, "vision_model.encoder.layers.{}.layer_norm1.weight")
    elif OPEN_MARK in shapes:
        places = open_clip_places
        layers = count(shapes, "visual.transformer.resblocks.{}.ln_1.weight")
    else:
        raise NotThisNetwork(f"there is neither {TRANSFORMERS_MARK} nor {OPEN_MARK}")
    if not layers:
        raise NotThisNetwork("the picture encoder has no layers")

    def shape(name: str, rank: int) -> tuple[int, ...]:
        place = places(name)[0]
        return place.shape(shape_of(shapes, place.name, rank))

    width, _, patch, _ = shape(TRANSFORMERS_MARK, 4)[:4]
    places_of_patches = shape("vision_model.embeddings.position_embedding.weight", 2)[0] - 1
    side = round(places_of_patches**0.5)
    if not side or side * side != places_of_patches:
        raise NotThisNetwork(f"it has {places_of_patches} places for parts of a picture, which make no square")
    return NetworkPlan(
        {
            "hidden_size": width,
            "intermediate_size": shape("vision_model.encoder.layers.0.mlp.fc1.weight", 2)[0],
            "num_hidden_layers": layers,
            "num_attention_heads": SIZES[width].heads if width in SIZES else max(1, width // HEAD_WIDTH),
            "image_size": side * patch,
            "patch_size": patch,
            "projection_dim": shape(PROJECTION, 2)[0],
            "hidden_act": "quick_gelu" if width <= BY_OPENAI else "gelu",
        },
        places,
        unused,
    )


def picture_encoder_name(config: Mapping[str, Any]) -> str:
    """As the field calls it: ViT-L/14 for 224 pixels."""
    width = config["hidden_size"]
    size = SIZES[width].name if width in SIZES else f"ViT {width} wide"
    if config.get("model_type") == MODEL_TYPE:
        size = f"SigLIP {width} wide"
    return f"{size}/{config['patch_size']} for {config['image_size']} pixels"


def picture_encoder_part(entries: Mapping[str, TensorEntry]) -> tuple[str, NetworkPlan]:
    """Where a file's picture encoder is, and how it is built. Raises NotThisNetwork."""
    prefix = find_picture_encoder(entries) or ""
    return prefix, picture_encoder_plan(shapes_below(entries, prefix))


def transformers_places(name: str) -> tuple[Place, ...]:
    return (Place(name),)


def open_clip_places(name: str) -> tuple[Place, ...]:
    """OpenCLIP keeps queries, keys and values in one matrix, and the projection as the one to multiply with."""
    if name == PROJECTION:
        return (Place("visual.proj", turned=True),)
    if name in _AROUND:
        return (Place(_AROUND[name]),)
    return (open_clip_layer(name, "visual."),)


def unused(name: str) -> bool:
    """What else a CLIP has: its text encoder, a scale, and positions that are counted anew."""
    return name.endswith("position_ids") or not name.startswith(("vision_model.", "visual.", "visual_projection."))
