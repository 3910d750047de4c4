"""Networks of transformers that look at pictures, tiny and random, for tests. The weights are always the same."""

import json
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch.nn import Module

from tests.tiny_models import save_weights, seed, write_json, write_tokenizer

LABELS = {0: "cat", 1: "dog", 2: "boat"}
NAMES: dict[str, Any] = {"id2label": LABELS, "label2id": {name: number for number, name in LABELS.items()}}
VIT: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
lib = cast(Any, transformers)


def write_clip(folder: Path) -> Module:
    words = _write_tokenizer(folder)
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    special = {"bos_token_id": words - 2, "eos_token_id": words - 1, "pad_token_id": words - 1}
    config = lib.CLIPConfig(text_config={**text, "vocab_size": words, **special}, vision_config=VIT, projection_dim=16)
    processor = lib.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return save(folder, lib.CLIPModel, config, processor)


def write_classifier(folder: Path) -> Module:
    config = lib.ViTConfig(**VIT, **NAMES)
    return save(folder, lib.ViTForImageClassification, config, _square(lib.ViTImageProcessorPil))


def write_detector(folder: Path) -> Module:
    config = lib.YolosConfig(**{**VIT, "image_size": [32, 32]}, num_detection_tokens=6, **NAMES)
    processor = lib.YolosImageProcessorPil(size={"height": 32, "width": 32}, do_pad=False)
    return save(folder, lib.YolosForObjectDetection, config, processor)


def write_open_detector(folder: Path) -> Module:
    words = _write_tokenizer(folder)
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    special = {"bos_token_id": words - 2, "eos_token_id": words - 1, "pad_token_id": words - 1}
    config = lib.OwlViTConfig(
        text_config={**text, "vocab_size": words, "max_position_embeddings": 77, **special},
        vision_config=VIT,
        projection_dim=16,
    )
    processor = lib.OwlViTImageProcessorPil(size={"height": 32, "width": 32})
    return save(folder, lib.OwlViTForObjectDetection, config, processor)


def write_semantic(folder: Path) -> Module:
    config = lib.SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 8, 8],
        num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=8,
        **NAMES,
    )
    return save(folder, lib.SegformerForSemanticSegmentation, config, _square(lib.SegformerImageProcessorPil))


def write_instances(folder: Path) -> Module:
    backbone = lib.SwinConfig(
        image_size=32,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = lib.Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        dim_feedforward=32,
        num_queries=6,
        **NAMES,
    )
    processor = lib.Mask2FormerImageProcessorPil(size={"height": 64, "width": 64}, size_divisor=32)
    return save(folder, lib.Mask2FormerForUniversalSegmentation, config, processor)


def write_captioner(folder: Path) -> Module:
    words = _write_tokenizer(folder)
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    special = {"bos_token_id": words - 2, "eos_token_id": words - 1, "pad_token_id": words - 1}
    config = lib.BlipConfig(
        text_config={
            **text, "vocab_size": words, "encoder_hidden_size": 16, "projection_dim": 16,
            "sep_token_id": words - 1, **special,
        },
        vision_config=VIT,
        projection_dim=16,
        image_text_hidden_size=16,
    )  # fmt: skip
    return save(folder, lib.BlipForConditionalGeneration, config, _square(lib.BlipImageProcessorPil))


def save(folder: Path, kind: Any, config: Any, processor: Any) -> Module:
    """A random network of a class, written as transformers would."""
    seed(0)
    module = cast(Module, kind(config)).eval()
    # Random networks are nearly indifferent: tell them apart from zero.
    for name, parameter in module.named_parameters():
        if "logit" not in name and "temperature" not in name:
            cast(Any, parameter.data).mul_(4.0) if parameter.ndim > 1 else None
    config.architectures = [kind.__name__]
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    processor.save_pretrained(folder)
    weights = {name: tensor.clone().contiguous() for name, tensor in module.state_dict().items()}
    save_weights(weights, folder / "model.safetensors")
    return module


def _square(kind: Any) -> Any:
    return kind(size={"height": 32, "width": 32})


def _write_tokenizer(folder: Path) -> int:
    """CLIP's kind of tokenizer, beside the network. How many words it has."""
    write_tokenizer(folder)
    return len(json.loads((folder / "vocab.json").read_text()))


def changed(folder: Path, **changes: object) -> None:
    """Change entries of a network's configuration."""
    path = folder / "config.json"
    write_json(path, {**json.loads(path.read_text()), **changes})


def picture(width: int = 40, height: int = 30, batch: int = 1) -> torch.Tensor:
    """What `AnyImage` gives, rounded as a file would."""
    pixels = torch.rand(batch, height, width, 3, generator=torch.Generator().manual_seed(0))
    return (pixels * 255).round() / 255
