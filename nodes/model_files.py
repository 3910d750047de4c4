"""Write networks to safetensors files as their patches make them, tensor by tensor: none is whole in memory."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import prod
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from nodes.adapter_names import canonical_shapes, original_names
from nodes.materialise import TEXT_ENCODER, UNET, VAE, Kind, weights_of
from nodes.model_folders import weight_files
from nodes.safetensors_header import DTYPE_BITS, read_header
from nodes.vae_layout import ORIGINAL_MARK, vae_names
from nodes.values import Clip, Model, Vae, Weights
from nodes.weight_places import Shape, Shapes, count, shapes_below

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
ALIGNMENT = 8


class Saved(NamedTuple):
    """A tensor to be written, which is read when its turn comes."""

    name: str
    shape: Shape
    dtype: str
    read: Callable[[], Tensor]


def model_tensors(model: Model) -> Iterator[Saved]:
    """A U-Net's tensors by their names in the original layout, below `model.diffusion_model.`."""
    shapes = canonical_shapes(model.weights, "U-Net")
    original = original_names(shapes)

    def renamed(name: str) -> str:
        module, _, kind = name.rpartition(".")
        return f"model.diffusion_model.{original.get(module, module)}.{kind}"

    return _tensors(model.weights, UNET, shapes, renamed)


def clip_tensors(clip: Clip) -> Iterator[Saved]:
    """A text encoder's tensors, without those of a second one beside it, as transformers names them."""
    shapes = canonical_shapes(clip.weights, "only text encoder")
    known = {name: shape for name, shape in shapes.items() if "position_ids" not in name and shape}
    return _tensors(
        clip.weights, TEXT_ENCODER, known, lambda name: name if name.startswith("text_proj") else f"text_model.{name}"
    )


def vae_tensors(vae: Vae) -> Iterator[Saved]:
    """An autoencoder's tensors by their names in the original layout."""
    shapes = _shapes(vae.weights, VAE)
    if ORIGINAL_MARK in shapes:
        levels = count(shapes, "encoder.down.{}.block.0.conv1.weight")
        table = vae_names(levels, count(shapes, "encoder.down.0.block.{}.conv1.weight"))
        shapes = {table.diffusers(name): shape for name, shape in shapes.items()}
    else:
        levels = count(shapes, "encoder.down_blocks.{}.resnets.0.conv1.weight")
        table = vae_names(levels, count(shapes, "encoder.down_blocks.0.resnets.{}.conv1.weight"))
    for each in _tensors(vae.weights, VAE, shapes, table.original):
        kernels = ".attn_1." in each.name and each.name.endswith(".weight") and len(each.shape) == 2
        yield each._replace(shape=(*each.shape, 1, 1)) if kernels else each


def _shapes(weights: Weights, kind: Kind) -> dict[str, Shape]:
    if weights.path.is_dir():
        files = weight_files(weights.path, kind.stem)
        return {name: entry.shape for file in files for name, entry in read_header(file).items()}
    return shapes_below(read_header(weights.path), weights.part)


def _tensors(weights: Weights, kind: Kind, shapes: Shapes, name_of: Callable[[str], str]) -> Iterator[Saved]:
    """Each tensor in the number format that most of the reference's own are kept in."""
    files = weight_files(weights.path, kind.stem) if weights.path.is_dir() else (weights.path,)
    kinds = [entry.dtype for file in files for entry in read_header(file).values() if entry.dtype in DTYPES]
    dtype = max(sorted(set(kinds)), key=kinds.count)
    read = weights_of(weights, kind, shapes)
    for name, shape in shapes.items():

        def take(name: str = name) -> Tensor:
            tensor = read(weights, name)
            assert tensor is not None  # its shape is that of the file
            return tensor.to(DTYPES[dtype])

        yield Saved(name_of(name), shape, dtype, take)


def encode_file(tensors: Iterable[Saved], metadata: Mapping[str, str]) -> Iterator[bytes]:
    """A safetensors file, piece by piece."""
    ordered = sorted(tensors, key=lambda each: each.name)
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    start = 0
    for each in ordered:
        end = start + prod(each.shape) * DTYPE_BITS[each.dtype] // 8
        header[each.name] = {"dtype": each.dtype, "shape": each.shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    yield len(text).to_bytes(8, "little") + text
    for each in ordered:
        yield cast(Any, each.read().contiguous().reshape(-1).view(torch.uint8)).numpy().tobytes()
