"""T5's encoder as a text encoder: its network, and the states that it gives to tokens."""

from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch import device as Device
from torch.nn import Module

from graph.collector import collector_paused
from nodes.materialise import Kind, load_network
from nodes.model_errors import ModelError
from nodes.model_folders import TEXT_STEM
from nodes.models import ModelPool
from nodes.precision import Precision
from nodes.t5_layout import t5_places, t5_plan, unused
from nodes.values import Clip, Weights

T5 = Kind(TEXT_STEM, t5_plan, t5_places, unused)


def load_t5(weights: Weights, precision: Precision, device: Device) -> Module:
    """The encoder of a T5. Raises ModelError."""
    with collector_paused():
        from transformers.models.t5.configuration_t5 import T5Config
        from transformers.models.t5.modeling_t5 import T5DenseActDense, T5DenseGatedActDense, T5EncoderModel

    def build(config: Any) -> Module:
        return cast(Any, T5EncoderModel)(cast(Any, T5Config).from_dict(dict(config)))

    module: Any = load_network(weights, T5, build, precision, device)
    module.encoder.embed_tokens = module.shared  # one vocabulary, once
    for each in module.modules():
        # transformers rounds what is inside these to the type that their weights are kept in.
        if isinstance(each, T5DenseGatedActDense):
            cast(Any, each).__class__ = _Gated
        elif isinstance(each, T5DenseActDense):
            cast(Any, each).__class__ = _Plain
    return module


class _Gated(Module):
    def forward(self, hidden: Tensor) -> Tensor:
        own = cast(Any, self)
        return own.wo(own.act(own.wi_0(hidden)) * own.wi_1(hidden))


class _Plain(Module):
    def forward(self, hidden: Tensor) -> Tensor:
        own = cast(Any, self)
        return own.wo(own.act(own.wi(hidden)))


def t5_states(pool: ModelPool, clip: Clip, ids: Int[Tensor, "texts tokens"]) -> Float[Tensor, "texts tokens width"]:
    """The states of the layer that `clip` asks for, after the final norm; a layer beyond the first means the last.

    Raises ModelError for words that it does not know.
    """
    module: Any = pool.text_encoder(clip)
    words, largest = module.config.vocab_size, int(ids.max())
    if largest >= words:
        reason = f"it knows {words} words, and its tokenizer has number {largest}"
        raise ModelError(
            clip.weights.path, reason, f"Take both from one model; the tokenizer is {clip.tokenizer.path}."
        )
    with torch.no_grad():
        output = module(input_ids=ids.to(pool.device), output_hidden_states=clip.layer != -1)
        layers = module.config.num_layers
        if clip.layer == -1 or clip.layer < -layers:
            return output.last_hidden_state.float()
        return module.encoder.final_layer_norm(output.hidden_states[clip.layer]).float()
