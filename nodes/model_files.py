"""Write networks to safetensors files as their patches make them, tensor by tensor: none is whole in memory."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from math import prod
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from nodes.adapter_names import canonical_shapes
from nodes.latent_scale import PLAYGROUND_SCALE, PLAYGROUND_SHIFT
from nodes.materialise import TEXT_ENCODER, UNET, VAE, Kind, weights_of
from nodes.model_errors import ModelError
from nodes.model_folders import made_by_openai, weight_files
from nodes.network_layout import original_places
from nodes.open_weights import OpenWeights
from nodes.safetensors_header import DTYPE_BITS
from nodes.scaled_weights import is_beside_weights
from nodes.single_files import LEVEL_MARKS, PLAYGROUND_MARK
from nodes.t5_encoder import T5
from nodes.t5_layout import COPY, VOCABULARY
from nodes.t5_layout import unused as is_unused
from nodes.text_layout import naming_of, open_clip_places
from nodes.text_references import FILE_NAMES, refuse_absent
from nodes.vae_layout import ORIGINAL_MARK, vae_names
from nodes.values import Clip, ContinuousLevels, Model, Vae, Weights
from nodes.weight_files import read_header
from nodes.weight_places import Place, Shape, Shapes, count, shapes_below

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
ALIGNMENT = 8


class Saved(NamedTuple):
    """A tensor to be written, which is read when its turn comes."""

    name: str
    shape: Shape
    dtype: str
    read: Callable[[], Tensor]


def model_tensors(model: Model) -> Iterator[Saved]:
    """A denoising network's tensors by their names in the original layout, below `model.diffusion_model.`."""
    shapes = canonical_shapes(model.weights, "U-Net")
    original = original_places(shapes)
    tensors = in_places(_tensors(model.weights, UNET, shapes, lambda name: name), lambda name: original[name])
    yield from (each._replace(name=f"model.diffusion_model.{each.name}") for each in tensors)
    yield from _marks(model)


def _marks(model: Model) -> Iterator[Saved]:
    """What tells how a network was trained, as single files have it."""

    def mark(name: str, numbers: Tensor) -> Saved:
        return Saved(name, tuple(numbers.shape), "F32", lambda: numbers)

    if model.zero_terminal_snr:
        yield mark("ztsnr", torch.empty(0))
    levels = model.levels if isinstance(model.levels, ContinuousLevels) else None
    if model.prediction == "v_prediction" and levels is None:
        yield mark("v_pred", torch.empty(0))
    if model.prediction == "v_prediction" and levels is not None and levels.time == "log":
        yield from (
            mark(name, torch.tensor(level))
            for name, level in zip(LEVEL_MARKS, (levels.lowest, levels.highest), strict=True)
        )
    if model.prediction == "edm" and model.latent_shift == PLAYGROUND_SHIFT:
        yield mark(PLAYGROUND_MARK, torch.tensor(PLAYGROUND_SHIFT).reshape(1, -1, 1, 1))
        yield mark("edm_std", 0.5 / torch.tensor(PLAYGROUND_SCALE).reshape(1, -1, 1, 1))


def clip_tensors(clip: Clip) -> Iterator[Saved]:
    """A text encoder's tensors, without those of others beside it, as transformers names them. Raises ModelError."""
    refuse_absent(clip)
    if clip.tower == "T5":
        yield from _t5_tensors(clip.weights)
        return
    shapes = canonical_shapes(clip.weights, "only text encoder")
    known = {name: shape for name, shape in shapes.items() if "position_ids" not in name and shape}
    yield from _tensors(
        clip.weights, TEXT_ENCODER, known, lambda name: name if name.startswith("text_proj") else f"text_model.{name}"
    )


def _t5_tensors(weights: Weights) -> Iterator[Saved]:
    """A T5's encoder, with its vocabulary once."""
    shapes = {VOCABULARY if name == COPY else name: shape for name, shape in _shapes(weights, T5).items()}
    known = {name: shape for name, shape in shapes.items() if not is_unused(name)}
    return _tensors(weights, T5, known, lambda name: name)


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


def checkpoint_tensors(model: Model, clip: Clip, vae: Vae) -> Iterator[Saved]:
    """All parts in the original layout, in one file. Raises ModelError for a text encoder that is not whole."""
    yield from model_tensors(model)
    yield from _statistics(model)
    yield from (each._replace(name=f"first_stage_model.{each.name}") for each in vae_tensors(vae))
    for at, encoder in enumerate(() if clip.absent else clip.encoders):
        if encoder.left_out:
            advice = "Load the model from a single file."
            raise ModelError(encoder.weights.path, "the text encoder lacks layers that such a file has", advice)
        if clip.joined != "side by side":
            start = f"text_encoders.{FILE_NAMES[encoder.tower]}.transformer."
            yield from (each._replace(name=f"{start}{each.name}") for each in clip_tensors(encoder))
            continue
        opened = _is_open(encoder.weights)
        start = f"conditioner.embedders.{at}." if encoder.further or at or encoder.projected else "cond_stage_model."
        found = clip_tensors(encoder)
        for each in in_places(found, lambda name: open_clip_places(name)[0]) if opened else found:
            yield each._replace(name=f"{start}{'model' if opened else 'transformer'}.{each.name}")


def _statistics(model: Model) -> Iterator[Saved]:
    """The mean and the spread of what CLIP says of pictures, which only unCLIP's files have."""
    if (weights := model.picture_statistics) is not None:
        files = OpenWeights()
        for name, entry in read_header(weights.path).items():
            if name.startswith(weights.part) and entry.dtype in DTYPES:
                yield Saved(name, entry.shape, entry.dtype, partial(files.tensor, weights.path, name))


def _is_open(weights: Weights) -> bool:
    """Whether OpenCLIP trained a text encoder, whose files have other names."""
    if weights.path.is_dir():
        return not made_by_openai(weights.path)
    return naming_of(_shapes(weights, TEXT_ENCODER)) == "openclip"


def in_places(tensors: Iterable[Saved], place_of: Callable[[str], Place]) -> Iterator[Saved]:
    """Tensors as another layout keeps them, where several may be shares of one: queries, keys and values."""
    parts: dict[str, list[tuple[Place, Saved]]] = {}
    for each in tensors:
        place = place_of(each.name)
        parts.setdefault(place.name, []).append((place, each))
    for name, found in parts.items():
        place, first = found[0]
        shape = (sum(each.shape[0] for _, each in found), *first.shape[1:]) if first.shape else ()

        def read(found: list[tuple[Place, Saved]] = found) -> Tensor:
            place, first = found[0]
            if place.whole:
                return first.read().t() if place.turned else first.read()
            shares: dict[int, Tensor] = {}
            for place, each in found:
                tensor, start = each.read(), 0
                unit = len(tensor) // sum(place.shares[at] for at in place.taken)
                for at in place.taken:
                    shares[at] = tensor.narrow(0, start, unit * place.shares[at])
                    start += unit * place.shares[at]
            return torch.cat([shares[at] for at in sorted(shares)])

        yield Saved(name, tuple(reversed(shape)) if place.turned else shape, first.dtype, read)


def _shapes(weights: Weights, kind: Kind) -> dict[str, Shape]:
    if weights.path.is_dir():
        files = weight_files(weights.path, kind.stem)
        return {name: entry.shape for file in files for name, entry in read_header(file).items()}
    return shapes_below(read_header(weights.path), weights.part)


def _tensors(weights: Weights, kind: Kind, shapes: Shapes, name_of: Callable[[str], str]) -> Iterator[Saved]:
    """Each tensor in the number format that most of the reference's own are kept in."""
    files = weight_files(weights.path, kind.stem) if weights.path.is_dir() else (weights.path,)
    entries = {name: entry for file in files for name, entry in read_header(file).items()}
    kinds = [each.dtype for name, each in entries.items() if each.dtype in DTYPES and not is_beside_weights(name)]
    dtype = max(sorted(set(kinds)), key=kinds.count, default="BF16")  # which holds all numbers of 8 bits
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
