"""Turn a reference to weights, in a folder with a configuration or in a file, into a network.

The one module that touches diffusers and transformers, whose calls are untyped.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor
from torch import device as Device
from torch import dtype as DType
from torch.nn import Module

from graph.collector import collector_paused
from nodes import flux_layout, sd3_layout
from nodes.halved_convolutions import halve_convolutions
from nodes.learned_words import with_room
from nodes.model_errors import ModelError
from nodes.model_folders import TEXT_STEM, UNET_STEM, VAE_STEM, weight_files
from nodes.narrow_weights import compute_in, is_narrow
from nodes.network_layout import network_plan
from nodes.open_weights import OpenWeights
from nodes.packed_layers import Packing, Scratch, compute_directly, packing
from nodes.patched_weights import Change, Other, changes
from nodes.placed_weights import taken
from nodes.precision import Eighth, Precision, PrecisionName
from nodes.prepared_networks import PreparedNetworks
from nodes.prepared_weights import PreparedWeights, can_be_prepared, from_prepared, prepared_key
from nodes.text_layout import text_plan, transformers_places, unused
from nodes.vae_layout import diffusers_places, vae_plan
from nodes.values import Weights
from nodes.weight_files import read_header
from nodes.weight_places import NetworkPlan, NotThisNetwork, Place, Shapes, shapes_below

DTYPES: dict[PrecisionName, DType] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

EIGHTHS: dict[Eighth, DType] = {"fp8_e4m3fn": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}

NAMED = 3
"""How many weights an error names."""
MOST_TOUCHED = 0.6
"""The share of a network that patches may change for the rest to be taken from where the network is prepared."""


class Found(NamedTuple):
    """A tensor of a file: which file, its whole name there, and its shape."""

    file: Path
    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Kind:
    """What all networks of one kind have in common: how their files are named and read.

    `merged` is the kind of those that may be merged into them, if it is another.
    """

    stem: str
    of_shapes: Callable[[Shapes], NetworkPlan]
    places: Callable[[str], Sequence[Place]]
    unused: Callable[[str], bool] = lambda name: False
    merged: "Kind | None" = None


UNET = Kind(UNET_STEM, network_plan, lambda name: (Place(name),))
VAE = Kind(VAE_STEM, vae_plan, diffusers_places)
TEXT_ENCODER = Kind(TEXT_STEM, text_plan, transformers_places, unused)


def load_unet(
    weights: Weights, precision: Precision, device: Device, prepared: PreparedNetworks | None = None
) -> Module:
    """A denoising network: a U-Net, or a transformer, as its configuration says."""
    with collector_paused():
        match _plan(weights, UNET).config.get("_class_name"):
            case sd3_layout.CLASS:
                from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel as Network
            case flux_layout.CLASS:
                from nodes.flux_network import FluxNetwork as Network
            case _:
                from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel as Network

    return load_network(weights, UNET, cast(Any, Network).from_config, precision, device, prepared)


def load_vae(weights: Weights, precision: Precision, device: Device) -> Module:
    with collector_paused():
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return load_network(weights, VAE, cast(Any, AutoencoderKL).from_config, precision, device)


def load_text_encoder(weights: Weights, precision: Precision, device: Device, projected: bool = False) -> Module:
    """A text encoder; `projected`: with the projection of its pooled state."""
    with collector_paused():
        from transformers.models.clip.configuration_clip import CLIPTextConfig
        from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection

    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    module = load_network(
        weights,
        TEXT_ENCODER,
        lambda config: kind(cast(Any, CLIPTextConfig).from_dict(dict(config))),
        precision,
        device,
    )
    # The positions are a buffer that files do not hold.
    embeddings = text_body(module).embeddings
    embeddings.token_embedding = with_room(embeddings.token_embedding)
    embeddings.position_ids = torch.arange(embeddings.position_embedding.num_embeddings, device=device)[None]
    return module


def _plan(weights: Weights, kind: Kind) -> NetworkPlan:
    """How a folder's network is built, by its configuration, or a file's, by its shapes."""
    if weights.path.is_dir():
        return NetworkPlan(json.loads((weights.path / "config.json").read_bytes()), kind.places, kind.unused)
    try:
        return kind.of_shapes(shapes_below(read_header(weights.path), weights.part))
    except NotThisNetwork as error:
        advice = f"See `latentloom models inspect {weights.path}`."
        raise ModelError(weights.path, f"the network cannot be built: {error}", advice) from error


def _tensors(weights: Weights, stem: str) -> dict[str, Found]:
    """The tensors of a reference, by their names without what they start with in a file of several networks."""
    files = weight_files(weights.path, stem) if weights.path.is_dir() else (weights.path,)
    return {
        name.removeprefix(weights.part): Found(file, name, entry.shape)
        for file in files
        for name, entry in read_header(file).items()
        if name.startswith(weights.part)
    }


def text_body(module: Module) -> Any:
    """The part of a CLIPTextModel that holds its layers: the model itself since transformers 5."""
    return getattr(module, "text_model", module)


def parameter_count(weights: Weights, stem: str) -> int:
    """How many numbers a network's weights are, from the headers of its files."""
    return sum(prod(found.shape) for found in _tensors(weights, stem).values())


KnownPart = Literal["unet", "vae", "text_encoder"]
STEMS: dict[KnownPart, str] = {"unet": UNET_STEM, "vae": VAE_STEM, "text_encoder": TEXT_STEM}


def expected_bytes(weights: Weights, part: KnownPart, precision: Precision) -> int:
    """How many bytes a network's weights will be in memory, from the headers of its files."""
    size = 1 if precision.rounded_to else DTYPES[precision.dtype].itemsize
    total = 0
    for file in weight_files(weights.path, STEMS[part]) if weights.path.is_dir() else (weights.path,):
        for name, entry in read_header(file).items():
            if name.startswith(weights.part):
                total += min(entry.nbytes, size * prod(entry.shape)) if precision.as_filed else size * prod(entry.shape)
    return total


def byte_count(module: Module) -> int:
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def load_network(
    weights: Weights,
    kind: Kind,
    build: Callable[[Mapping[str, Any]], Module],
    precision: Precision,
    device: Device,
    prepared: PreparedNetworks | None = None,
) -> Module:
    """The network of a reference, with the weights mapped from its files and changed by its patches.

    Raises ModelError.

    Args:
        build: makes the network of its configuration.
        prepared: where networks are kept in the form in which they are computed with.
    """
    plan = _plan(weights, kind)
    try:
        with torch.device("meta"):
            module = build(plan.config)
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, ZeroDivisionError) as error:
        reason = f"the configuration does not describe a network ({error})"
        place = weights.path / "config.json" if weights.path.is_dir() else weights.path
        raise ModelError(place, reason, "Take the whole folder from one model.") from error
    wanted = module.state_dict()
    shapes = {name: tuple(weight.shape) for name, weight in wanted.items()}
    form = Form(
        DTYPES[precision.dtype],
        device,
        precision.channels_last,
        precision.as_filed,
        precision.bf16_convolutions,
        EIGHTHS[precision.rounded_to] if precision.rounded_to else None,
    )
    sources = _match(weights.path, _tensors(weights, kind.stem), wanted, plan)
    change = _changes(weights, kind, shapes)
    touched = {name: shape for name, shape in shapes.items() if change.touches(name)}
    read = None
    if prepared is not None and form.can_be_prepared() and _numbers(touched) <= MOST_TOUCHED * _numbers(shapes):
        places = [(target, found.name, *place) for target, (found, place) in sources.items()]
        key = prepared_key(weights.unpatched or weights.identity, str(form.dtype), form.channels_last, places)
        write = partial(_write, module=module, sources=sources, wanted=shapes, form=form)
        read = from_prepared(prepared, key, module, shapes, form.dtype, write, touched)
    rest = shapes if read is None else touched
    # What is packed is in its place already, and was asked for with the rest.
    module.load_state_dict((read or {}) | _read(module, sources, rest, form, change), assign=True, strict=False)
    module.requires_grad_(False).eval()
    if precision.bf16_convolutions:
        halve_convolutions(module)
    if precision.as_filed or precision.rounded_to:
        compute_in(module, form.dtype)
    compute_directly(module)
    return module


def _numbers(shapes: Shapes) -> int:
    return sum(map(prod, shapes.values()))


Source = tuple[Found, Place]
"""Where one weight of a network comes from."""


def _match(
    path: Path, tensors: Mapping[str, Found], wanted: Mapping[str, Tensor], plan: NetworkPlan
) -> dict[str, Source]:
    """Where each weight of the network lies."""
    sources: dict[str, Source] = {}
    missing: list[str] = []
    misshapen: list[str] = []
    for target, weight in wanted.items():
        place = next((place for place in plan.places(target) if place.name in tensors), None)
        if place is None:
            missing.append(target)
            continue
        found, shape = tensors[place.name], tuple(weight.shape)
        if not _fits(place.shape(found.shape), shape):
            misshapen.append(f"{place.name} is {list(found.shape)} instead of {list(shape)}")
        sources[target] = found, place
    used = {place.name for _, place in sources.values()}
    unknown = [name for name in tensors if name not in used and not plan.unused(name)]
    problems = [
        _listed("have another shape", misshapen),
        _listed("are missing", missing),
        _listed("have no place in the network", unknown),
    ]
    found_wrong = "; ".join(problem for problem in problems if problem)
    if found_wrong and path.is_dir():
        raise ModelError(
            path,
            f"the weights do not fit the network that config.json describes: {found_wrong}",
            "Take config.json and the weights from the same model.",
        )
    if found_wrong:
        advice = f"See `latentloom models inspect {path}`."
        raise ModelError(path, f"the weights do not fit the network that their shapes describe: {found_wrong}", advice)
    return sources


def _listed(what: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f", and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} {what}: {', '.join(names[:NAMED])}{more}"


def _fits(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether the shapes agree, but for the 1x1 kernels that older files have where a matrix is meant."""
    return found == wanted or (found[: len(wanted)] == wanted and set(found[len(wanted) :]) == {1})


def _changes(weights: Weights, kind: Kind, shapes: Shapes) -> Change:
    """What the patches of a reference make of its weights; those of networks merged into it come first."""
    others: dict[Weights, Other] = {}

    def other(merged: Weights, name: str) -> Tensor | None:
        if merged not in others:
            others[merged] = weights_of(merged, kind.merged or kind, shapes)
        return others[merged](merged, name)

    return changes(weights, shapes, other) if weights.patches else _UNCHANGED


_UNCHANGED = Change(lambda name, weight: weight, lambda name: False)


def weights_of(weights: Weights, kind: Kind, shapes: Shapes) -> Other:
    """The weights of a network, one at a time, in float32, with its patches; None where it has none of that shape."""
    tensors, plan, change = _tensors(weights, kind.stem), _plan(weights, kind), _changes(weights, kind, shapes)
    files = OpenWeights()

    def read(_: Weights, name: str) -> Tensor | None:
        place = next((place for place in plan.places(name) if place.name in tensors), None)
        if place is None or not _fits(place.shape(tensors[place.name].shape), shapes[name]):
            return None
        found = tensors[place.name]
        tensor = taken(files.tensor(found.file, found.name), place).reshape(shapes[name])
        return change.of(name, tensor).to(torch.float32)

    return read


@dataclass(frozen=True)
class Form:
    """What weights are turned into.

    `as_filed`: those of 16 bits or fewer keep their type. `halved`: those of convolutions do in any case. Where
    `rounded_to` is stated, all are rounded to it; what is too large for that becomes the largest number that it has.
    """

    dtype: DType
    device: Device = Device("cpu")
    channels_last: bool = False
    as_filed: bool = False
    halved: bool = False
    rounded_to: DType | None = None

    def of(self, tensor: Tensor) -> Tensor:
        """In one pass: memory that is touched for the first time costs more than the numbers in it."""
        if self.rounded_to is not None:
            most = torch.finfo(self.rounded_to).max
            return tensor.float().clamp(-most, most).to(self.device, self.rounded_to)
        if (self.as_filed and is_narrow(tensor)) or (self.halved and tensor.ndim == 4):
            return tensor.to(self.device)
        return tensor.to(device=self.device, dtype=self.dtype, memory_format=self._layout(tensor))

    def is_of(self, tensor: Tensor) -> bool:
        """Whether it is in this form already."""
        if self.rounded_to is not None:
            return tensor.device == self.device and tensor.dtype == self.rounded_to
        layout = self._layout(tensor)
        suits = layout == torch.preserve_format or tensor.is_contiguous(memory_format=layout)
        return tensor.device == self.device and tensor.dtype == self.dtype and suits

    def _layout(self, tensor: Tensor) -> torch.memory_format:
        return torch.channels_last if self.channels_last and tensor.ndim == 4 else torch.preserve_format

    def packing(self, module: Module, name: str) -> Packing | None:
        """What a layer takes the weights of this name by, if it does not take them as they are."""
        owner, _, last = name.rpartition(".")
        is_packable = last == "weight" and self.device.type == "cpu" and not self.as_filed and not self.rounded_to
        return packing(module.get_submodule(owner), self.dtype) if is_packable else None

    def can_be_prepared(self) -> bool:
        is_plain = not self.as_filed and not self.halved and not self.rounded_to
        return self.device.type == "cpu" and is_plain and can_be_prepared()


def _read(
    module: Module, sources: Mapping[str, Source], wanted: Shapes, form: Form, change: Change
) -> dict[str, Tensor]:
    """The weights, mapped from their files; only what changes, or has another form in the network, is copied.

    Those that layers take in an order of their own are not among them: they are given to these one by one, as memory
    that was used for one can be used for the next.
    """
    passing, lasting = OpenWeights(), OpenWeights()
    weights: dict[str, Tensor] = {}
    scratch = Scratch()
    for target, shape in wanted.items():
        tensor = _filed(passing, sources[target], shape)
        changed = change.of(target, tensor)
        # What needs no copy is not put in order either: other processes share it.
        mapped = changed is tensor and form.is_of(tensor)
        order = None if mapped else form.packing(module, target)
        if order:
            order.take(scratch.holding(changed, order.dtype))
            continue
        weight = form.of(changed)
        # What stays mapped must not keep the mapping through which the rest was read.
        weights[target] = _filed(lasting, sources[target], shape) if weight is tensor else weight
    return weights


def _write(file: PreparedWeights, module: Module, sources: Mapping[str, Source], wanted: Shapes, form: Form) -> None:
    """Have a file hold the weights in the form in which the network takes them. Raises OSError."""
    passing, scratch = OpenWeights(), Scratch()
    for target, shape in wanted.items():
        tensor = _filed(passing, sources[target], shape)
        order = form.packing(module, target)
        if order:
            file.add_ordered(target, order.order(scratch.holding(tensor, order.dtype)))
        else:
            file.add(target, form.of(tensor))


def _filed(files: OpenWeights, source: Source, shape: tuple[int, ...]) -> Tensor:
    found, place = source
    return taken(files.tensor(found.file, found.name), place).reshape(shape)
