"""T5's encoder as transformers names its weights (Raffel et al. 2019), and a configuration from shapes."""

from typing import Any

from nodes.scaled_weights import is_beside_weights
from nodes.weight_places import NetworkPlan, NotThisNetwork, Place, Shapes, count, shape_of

VOCABULARY = "shared.weight"
COPY = "encoder.embed_tokens.weight"
"""Some files have the vocabulary under this name, or under both."""
_BLOCK = "encoder.block.{}."
_ATTENTION = "layer.0.SelfAttention."
_DENSE = "layer.1.DenseReluDense."
NORM = "encoder.final_layer_norm.weight"
MARK = f"{_BLOCK.format(0)}{_ATTENTION}q.weight"
_BIAS = f"{_ATTENTION}relative_attention_bias.weight"
LEAST_BUCKETS, MOST_BUCKETS = 4, 512
"""Of distances between tokens: half of them are for either side, and half of these for single steps, of 128."""
_NOT_USED = ("decoder.", "lm_head.", "logit_scale")
"""How names start that a whole T5 has beside its encoder."""


def is_t5(shapes: Shapes) -> bool:
    """Whether these are the weights of a T5, whatever becomes of them."""
    return MARK in shapes


def t5_plan(shapes: Shapes) -> NetworkPlan:
    """The encoder that a file's names and shapes describe. Raises NotThisNetwork."""
    if not is_t5(shapes):
        raise NotThisNetwork(f"there is no {MARK}")
    if _BLOCK.format(1) + _BIAS in shapes:
        raise NotThisNetwork("it is a UMT5, every layer of which has positions of its own; supported is T5")
    words = shape_of(shapes, VOCABULARY if VOCABULARY in shapes else COPY, 2)
    buckets, heads = shape_of(shapes, _BLOCK.format(0) + _BIAS, 2)
    inner = shape_of(shapes, MARK, 2)[0]
    if not LEAST_BUCKETS <= buckets < MOST_BUCKETS or inner % heads:
        raise NotThisNetwork(f"its positions have the shape {[buckets, heads]}, which does not fit {inner} numbers")
    gate = f"{_BLOCK.format(0)}{_DENSE}wi_0.weight"
    gated = gate in shapes
    config: dict[str, Any] = {
        "vocab_size": words[0],
        "d_model": words[1],
        "d_kv": inner // heads,
        "d_ff": shape_of(shapes, gate if gated else gate.replace("wi_0", "wi"), 2)[0],
        "num_layers": count(shapes, f"{_BLOCK}{_ATTENTION}q.weight"),
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
        "feed_forward_proj": "gated-gelu" if gated else "relu",
        "is_encoder_decoder": False,
    }
    return NetworkPlan(config, t5_places, unused)


def t5_places(name: str) -> tuple[Place, ...]:
    """The vocabulary is one, under either of its names."""
    return (Place(VOCABULARY), Place(COPY)) if name in (VOCABULARY, COPY) else (Place(name),)


def unused(name: str) -> bool:
    """A decoder is not used, and one copy of the vocabulary is enough; scales are read with their weights."""
    return name.startswith(_NOT_USED) or name == COPY or is_beside_weights(name)
