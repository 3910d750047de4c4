"""Files of LoRAs and their relatives for small models, in the namings they have in the wild."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tests.tiny_models import save_weights

Tensors = dict[str, Tensor]


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.3


def lora(weight: Tensor, rank: int = 2, seed: int = 1) -> Tensors:
    """LoRA's two matrices for a weight; those of a convolution are convolutions."""
    ones = [1] * (weight.ndim - 2)
    return {
        "lora_up.weight": noise(len(weight), rank, *ones, seed=seed),
        "lora_down.weight": noise(rank, *weight.shape[1:], seed=seed + 1),
    }


def change(parts: Mapping[str, Tensor]) -> Tensor:
    """What LoRA's matrices add up to."""
    up, down = parts["lora_up.weight"], parts["lora_down.weight"]
    return (up.flatten(1) @ down.flatten(1)).reshape(len(up), *down.shape[1:])


def named(base: str, parts: Mapping[str, Tensor]) -> Tensors:
    return {f"{base}.{name}": part for name, part in parts.items()}


def write(path: Path, tensors: Tensors) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path
