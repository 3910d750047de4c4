"""T5's encoder: names and shapes as published, tiny random ones, and a tiny vocabulary."""

import json
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from tests import tiny_models
from tests.original_layouts import Shapes, linear

WIDTH, WORDS = 128, 60
PIECES = ("▁a", "▁the", "▁cat", "▁dog", "▁blue", "▁and", "▁", *"abcdefghijklmnopqrstuvwxyz.,!:()", "猫")


def shapes(width: int = 4096, layers: int = 24, heads: int = 64, inner: int = 10240, words: int = 32128) -> Shapes:
    """The encoder of T5 v1.1, XXL if nothing else is said, as transformers names it."""
    found: Shapes = {"shared.weight": (words, width), "encoder.final_layer_norm.weight": (width,)}
    found["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = (32, heads)
    for layer in range(layers):
        start = f"encoder.block.{layer}.layer"
        for name in "qkvo":
            found |= linear(f"{start}.0.SelfAttention.{name}", width, width, bias=False)
        for name in ("wi_0", "wi_1"):
            found |= linear(f"{start}.1.DenseReluDense.{name}", inner, width, bias=False)
        found |= linear(f"{start}.1.DenseReluDense.wo", width, inner, bias=False)
        found |= {f"{start}.{part}.layer_norm.weight": (width,) for part in (0, 1)}
    return found


def write_encoder(folder: Path, width: int = WIDTH) -> dict[str, Tensor]:
    """A tiny encoder as a folder of transformers'; its weights as a file has them, the vocabulary once."""
    from transformers.models.t5.configuration_t5 import T5Config
    from transformers.models.t5.modeling_t5 import T5EncoderModel

    config = T5Config(
        vocab_size=WORDS,
        d_model=width,
        d_kv=8,
        d_ff=64,
        num_layers=3,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
    )
    tiny_models.seed(5)
    module: Any = T5EncoderModel(config)
    weights = {
        name: torch.randn_like(tensor) / max(1, tensor.shape[-1]) ** 0.5 + (0.7 if tensor.ndim == 1 else 0)
        for name, tensor in cast("dict[str, Tensor]", module.state_dict()).items()
        if name != "encoder.embed_tokens.weight"
    }
    folder.mkdir(parents=True, exist_ok=True)
    module.config.save_pretrained(folder)
    tiny_models.save_weights(weights, folder / "model.safetensors")
    return weights


def vocabulary() -> list[tuple[str, float]]:
    """Pieces and how likely each is: what T5 begins with, words, letters."""
    return [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((piece, -1.0 / len(piece)) for piece in PIECES)]


def write_tokenizer(folder: Path) -> Path:
    """T5's kind of vocabulary, as transformers saves it."""
    from transformers.models.t5.tokenization_t5 import T5Tokenizer

    cast(Any, T5Tokenizer)(vocab=vocabulary(), extra_ids=0).save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tokenizer_class": "T5Tokenizer"}))
    return folder
