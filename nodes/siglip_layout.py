"""SigLIP's picture encoders (Zhai et al. 2023) as transformers names their weights, and a configuration from shapes."""

from nodes.weight_places import NetworkPlan, NotThisNetwork, Place, Shapes, count, shape_of

MODEL_TYPE = "siglip_vision_model"
START = "vision_model."
MARK = f"{START}embeddings.patch_embedding.bias"
"""Which CLIP's have none of."""
HEADS = 16
"""Of the encoder that is 1152 wide; of others each is 64 wide."""
WIDE = 1152
HEAD_WIDTH = 64


def siglip_plan(shapes: Shapes) -> NetworkPlan:
    """The picture encoder that a file's names and shapes describe, without what pools its states.

    Raises NotThisNetwork.
    """
    width, _, patch, _ = shape_of(shapes, f"{START}embeddings.patch_embedding.weight", 4)[:4]
    places = shape_of(shapes, f"{START}embeddings.position_embedding.weight", 2)[0]
    side = round(places**0.5)
    if side * side != places:
        raise NotThisNetwork(f"it has {places} places for parts of a picture, which make no square")
    config = {
        "model_type": MODEL_TYPE,
        "hidden_size": width,
        "intermediate_size": shape_of(shapes, f"{START}encoder.layers.0.mlp.fc1.weight", 2)[0],
        "num_hidden_layers": count(shapes, f"{START}encoder.layers.{{}}.layer_norm1.weight"),
        "num_attention_heads": HEADS if width == WIDE else max(1, width // HEAD_WIDTH),
        "image_size": side * patch,
        "patch_size": patch,
        "vision_use_head": False,
    }
    return NetworkPlan(config, siglip_places, unused)


def siglip_places(name: str) -> tuple[Place, ...]:
    """Files have a leading `vision_model.`; transformers 5 dropped it."""
    bare = name.removeprefix(START)
    return Place(f"{START}{bare}"), Place(bare)


def unused(name: str) -> bool:
    """The text encoder of a whole SigLIP, and what pools the states of pictures."""
    return not name.startswith(START) or name.startswith(f"{START}head.")
