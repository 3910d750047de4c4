"""The text encoders of Stable Diffusion 3 and Flux, scaled down: in folders of transformers', and the same in files."""

from pathlib import Path
from typing import Any

from torch import Tensor

from tests import t5_models, tiny_models
from tests.original_layouts import below, write_weights
from tests.small_models import words_in

LOW, LARGE, T5_WIDTH = 64, 1024, 1792
"""How wide the states are; one of 1024 and more is told to be OpenCLIP's by that."""
PARTS = {"clip_l": "text_encoder", "clip_g": "text_encoder_2", "t5xxl": "text_encoder_3"}
"""What files are called, and folders of Stable Diffusion 3."""


def write_texts(folder: Path) -> dict[str, dict[str, Tensor]]:
    """All three as folders, each with its tokenizer; their weights by the names of files."""
    tokenizer = folder / "tokenizer"
    tiny_models.write_tokenizer(tokenizer)
    tiny_models.write_tokenizer(folder / "tokenizer_2")
    path = folder / "tokenizer_2" / "tokenizer_config.json"
    path.write_text(path.read_text().replace('"pad_token": "<|endoftext|>"', '"pad_token": "!"'))
    t5_models.write_tokenizer(folder / "tokenizer_3")
    write_clip(folder / "text_encoder", LOW, words_in(tokenizer), "quick_gelu", projection=LOW)
    write_clip(folder / "text_encoder_2", LARGE, words_in(tokenizer), "gelu", projection=LARGE)
    t5_models.write_encoder(folder / "text_encoder_3", T5_WIDTH)
    return {name: tiny_models.load_weights(folder / part / "model.safetensors") for name, part in PARTS.items()}


def write_clip(folder: Path, width: int, words: int, activation: str, projection: int = 0) -> None:
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=words,
        hidden_size=width,
        intermediate_size=96,
        num_hidden_layers=2 if width == LARGE else 3,
        num_attention_heads=max(1, width // 64),
        hidden_act=activation,
        projection_dim=projection or width,
        bos_token_id=words - 2,
        eos_token_id=words - 1,
    )
    tiny_models.seed(width)
    tiny_models.save((CLIPTextModelWithProjection if projection else CLIPTextModel)(config), folder)


def write_files(folder: Path, texts: dict[str, dict[str, Tensor]]) -> None:
    """Each in a file of its own, as those are that are shared between models."""
    for name, weights in texts.items():
        write_weights(folder / f"{name}.safetensors", weights)


def in_one_file(texts: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """As whole checkpoints hold them."""
    whole: dict[str, Any] = {}
    for name, weights in texts.items():
        whole |= below(f"text_encoders.{name}.transformer.", weights)  # pyright: ignore[reportArgumentType]  # tensors for shapes
    return whole
