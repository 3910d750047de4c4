"""CLIP's text encoders as transformers and as OpenCLIP name their weights, and a configuration from shapes."""

from typing import Any, Literal

from nodes.weight_places import NetworkPlan, NotThisNetwork, Place, Shape, Shapes, count, shape_of

HEAD_WIDTH = 64
OPEN_WIDTH = 1024
"""Text encoders of this width and more were trained by OpenCLIP, with another activation than OpenAI's."""
PROJECTION = "text_projection.weight"
NORM = "final_layer_norm.weight"
"""Without a leading `text_model.`."""

Naming = Literal["transformers", "bare", "openclip"]
"""`bare` is transformers' naming without its leading `text_model.`."""

_EMBEDDING = "embeddings.token_embedding.weight"
_MARKS: dict[Naming, str] = {
    "transformers": f"text_model.{_EMBEDDING}",
    "bare": _EMBEDDING,
    "openclip": "transformer.resblocks.0.attn.in_proj_weight",
}
_NOT_USED = ("position_ids", "logit_scale", "attn_mask", "text_projection", PROJECTION)
_PICTURES = ("vision_model.", "visual.", "visual_projection.")
"""How the names of a whole CLIP's picture encoder start."""
_OPEN_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_OPEN_AROUND = {
    _EMBEDDING: "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_THIRDS = ("q_proj", "k_proj", "v_proj")


def naming_of(shapes: Shapes) -> Naming | None:
    """How the weights of a text encoder are named; None: there is none."""
    return next((naming for naming, mark in _MARKS.items() if mark in shapes), None)


def text_plan(shapes: Shapes, *, openai: bool | None = None) -> NetworkPlan:
    """The text encoder that a file's names and shapes describe. Raises NotThisNetwork.

    Args:
        openai: whether OpenAI trained it, which decides its activation; None: its width tells.
    """
    naming = naming_of(shapes)
    if naming is None:
        raise NotThisNetwork(f"there is none of {', '.join(_MARKS.values())}")
    places = open_clip_places if naming == "openclip" else transformers_places
    named = {name: _first(places(name), shapes) for name in (_EMBEDDING, _POSITIONS, _MLP, PROJECTION)}
    words = _needed(named[_EMBEDDING], _EMBEDDING)
    layer = {"openclip": "transformer.resblocks.{}.ln_1.weight", "bare": "encoder.layers.{}.layer_norm1.weight"}
    layers = count(shapes, layer.get(naming, "text_model.encoder.layers.{}.layer_norm1.weight"))
    if not layers:
        raise NotThisNetwork("the text encoder has no layers")
    width = words[1]
    by_openai = naming != "openclip" and width < OPEN_WIDTH if openai is None else openai
    projection = named[PROJECTION]
    config: dict[str, Any] = {
        "vocab_size": words[0],
        "hidden_size": width,
        "intermediate_size": _needed(named[_MLP], _MLP)[0],
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // HEAD_WIDTH),
        "max_position_embeddings": _needed(named[_POSITIONS], _POSITIONS)[0],
        "hidden_act": "quick_gelu" if by_openai else "gelu",
        "projection_dim": width if projection is None else projection[0],
        "bos_token_id": words[0] - 2,
        "eos_token_id": words[0] - 1,
        "pad_token_id": words[0] - 1 if by_openai else 0,
    }
    return NetworkPlan(config, places, unused)


_POSITIONS = "embeddings.position_embedding.weight"
_MLP = "encoder.layers.0.mlp.fc1.weight"


def _first(places: tuple[Place, ...], shapes: Shapes) -> Shape | None:
    return next((place.shape(shapes[place.name]) for place in places if place.name in shapes), None)


def _needed(shape: Shape | None, name: str) -> Shape:
    return shape_of({} if shape is None else {name: shape}, name, 2)


def transformers_places(name: str) -> tuple[Place, ...]:
    """Files have a leading `text_model.` or not; so have networks: transformers 5 dropped it."""
    if name == PROJECTION:
        return (Place(name),)
    bare = name.removeprefix("text_model.")
    return Place(f"text_model.{bare}"), Place(bare)


def open_clip_places(name: str) -> tuple[Place, ...]:
    """OpenCLIP keeps queries, keys and values in one matrix, and the projection as the one to multiply with."""
    if name == PROJECTION:
        return Place("text_projection", turned=True), Place(PROJECTION)
    bare = name.removeprefix("text_model.")
    if bare in _OPEN_AROUND:
        return (Place(_OPEN_AROUND[bare]),)
    return (open_clip_layer(bare),)


def open_clip_layer(name: str, start: str = "") -> Place:
    """Where OpenCLIP keeps a weight of a layer of a transformer, whose names there begin with `start`."""
    _, _, rest = name.partition("encoder.layers.")
    number, _, inner = rest.partition(".")
    module, _, kind = inner.rpartition(".")
    block = f"{start}transformer.resblocks.{number}"
    third = module.removeprefix("self_attn.")
    if third in _THIRDS:
        return Place(f"{block}.attn.in_proj_{kind}", (1,) * len(_THIRDS), (_THIRDS.index(third),))
    return Place(f"{block}.{_OPEN_LAYER.get(module, module)}.{kind}")


def open_clip_names(shapes: Shapes) -> list[str]:
    """transformers' names of the weights of a text encoder in OpenCLIP's layout, without a leading `text_model.`."""
    layers = count(shapes, "transformer.resblocks.{}.ln_1.weight")
    modules = (*_OPEN_LAYER, *(f"self_attn.{name}" for name in _THIRDS))
    inner = [
        f"encoder.layers.{layer}.{module}.{kind}"
        for layer in range(layers)
        for module in modules
        for kind in ("weight", "bias")
    ]
    return [*_OPEN_AROUND, *inner, PROJECTION]


def unused(name: str) -> bool:
    """A projection is only used where the pooled text is; a whole CLIP has a picture encoder, too."""
    return name.endswith(_NOT_USED) or name.startswith(_PICTURES)
