"""Turn a folder with a configuration and weights into a network, without ever making random weights.

The one module that touches diffusers and transformers, whose calls are untyped.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch import device as Device
from torch import dtype as DType
from torch.nn import Module

from graph.collector import collector_paused
from nodes.model_errors import ModelError
from nodes.model_folders import TEXT_STEM, UNET_STEM, VAE_STEM, weight_files
from nodes.precision import Precision, PrecisionName
from nodes.safetensors_header import TensorEntry, read_header

DTYPES: dict[PrecisionName, DType] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

NAMED = 3
"""How many weights an error names."""

Rename = Callable[[str, Mapping[str, Tensor]], str | None]
"""From a name in a file to the name in the network; None: the network has no use for it."""


def load_unet(folder: Path, precision: Precision, device: Device) -> Module:
    with collector_paused():
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    def build() -> Module:
        return cast(Any, UNet2DConditionModel).from_config(_config(folder))

    return _load(folder, UNET_STEM, build, lambda name, _: name, precision, device)


def load_vae(folder: Path, precision: Precision, device: Device) -> Module:
    with collector_paused():
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    def build() -> Module:
        return cast(Any, AutoencoderKL).from_config(_config(folder))

    return _load(folder, VAE_STEM, build, _vae_name, precision, device)


def load_text_encoder(folder: Path, precision: Precision, device: Device) -> Module:
    with collector_paused():
        from transformers.models.clip.configuration_clip import CLIPTextConfig
        from transformers.models.clip.modeling_clip import CLIPTextModel

    def build() -> Module:
        return CLIPTextModel(cast(Any, CLIPTextConfig).from_dict(_config(folder)))

    module = _load(folder, TEXT_STEM, build, _text_name, precision, device)
    # The positions are a buffer that files do not hold.
    embeddings = text_body(module).embeddings
    embeddings.position_ids = torch.arange(embeddings.position_embedding.num_embeddings, device=device)[None]
    return module


def text_body(module: Module) -> Any:
    """The part of a CLIPTextModel that holds its layers: the model itself since transformers 5."""
    return getattr(module, "text_model", module)


def parameter_count(folder: Path, stem: str) -> int:
    """How many numbers a part's weights are, from the headers of its files."""
    return sum(prod(entry.shape) for file in weight_files(folder, stem) for entry in read_header(file).values())


def byte_count(module: Module) -> int:
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def _config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_bytes())


def _load(
    folder: Path, stem: str, build: Callable[[], Module], rename: Rename, precision: Precision, device: Device
) -> Module:
    """The network described by the folder's configuration, with the weights mapped from its files."""
    try:
        with torch.device("meta"):
            module = build()
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, ZeroDivisionError) as error:
        reason = f"the configuration does not describe a network ({error})"
        raise ModelError(folder / "config.json", reason, "Take the whole folder from one model.") from error
    wanted = module.state_dict()
    files = weight_files(folder, stem)
    places = _match(folder, {file: read_header(file) for file in files}, wanted, rename)
    weights = _read(places, wanted, DTYPES[precision.dtype], device)
    module.load_state_dict(weights, assign=True)
    module.requires_grad_(False).eval()
    if precision.channels_last:
        cast(Any, module).to(memory_format=torch.channels_last)
    return module


def _match(
    folder: Path, headers: Mapping[Path, Mapping[str, TensorEntry]], wanted: Mapping[str, Tensor], rename: Rename
) -> dict[str, tuple[Path, str]]:
    """Where each weight of the network lies: the file, and its name there."""
    places: dict[str, tuple[Path, str]] = {}
    unknown: list[str] = []
    misshapen: list[str] = []
    for file, entries in headers.items():
        for name, entry in entries.items():
            target = rename(name, wanted)
            if target is None:
                continue
            if target not in wanted:
                unknown.append(name)
            elif not _fits(entry.shape, tuple(wanted[target].shape)):
                misshapen.append(f"{name} is {list(entry.shape)} instead of {list(wanted[target].shape)}")
            places[target] = (file, name)
    missing = [name for name in wanted if name not in places]
    problems = [
        _listed("have another shape", misshapen),
        _listed("are missing", missing),
        _listed("have no place in the network", unknown),
    ]
    found = "; ".join(problem for problem in problems if problem)
    if found:
        raise ModelError(
            folder,
            f"the weights do not fit the network that config.json describes: {found}",
            "Take config.json and the weights from the same model.",
        )
    return places


def _listed(what: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f", and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} {what}: {', '.join(names[:NAMED])}{more}"


def _fits(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether the shapes agree, but for the 1x1 kernels that older files have where a matrix is meant."""
    return found == wanted or (found[: len(wanted)] == wanted and set(found[len(wanted) :]) == {1})


def _read(
    places: Mapping[str, tuple[Path, str]], wanted: Mapping[str, Tensor], dtype: DType, device: Device
) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    weights: dict[str, Tensor] = {}
    for path in {path for path, _ in places.values()}:
        try:
            with cast(Any, safe_open)(path, framework="pt", device="cpu") as file:
                for target, (place, name) in places.items():
                    if place == path:
                        weight = cast(Tensor, file.get_tensor(name)).reshape(wanted[target].shape)
                        weights[target] = weight.to(device=device, dtype=dtype)
        except (OSError, SafetensorError) as error:
            raise ModelError(
                path, f"the weights cannot be read ({error})", "Copy or download the file again."
            ) from error
    return weights


_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _vae_name(name: str, wanted: Mapping[str, Tensor]) -> str:
    """Autoencoders of before 2023 name the weights of their attention otherwise."""
    if name in wanted:
        return name
    block, _, rest = name.rpartition(".attentions.0.")
    layer, _, kind = rest.partition(".")
    return f"{block}.attentions.0.{_OLD_ATTENTION[layer]}.{kind}" if layer in _OLD_ATTENTION else name


_NOT_TEXT = ("position_ids", "text_projection.weight", "logit_scale")


def _text_name(name: str, wanted: Mapping[str, Tensor]) -> str | None:
    """Text encoders are saved with and without a leading `text_model.`; transformers 5 dropped it."""
    if name.endswith(_NOT_TEXT):
        return None
    bare = name.removeprefix("text_model.")
    return bare if bare in wanted else f"text_model.{bare}" if f"text_model.{bare}" in wanted else name
