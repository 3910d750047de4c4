"""ControlLoRAs: ControlNets that are kept as low-rank changes to the U-Net that they steer (Stability AI 2023)."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import Module

from nodes.adapter_names import canonical_shapes
from nodes.control_layout import controlnet_config, controlnet_names
from nodes.materialise import DTYPES, UNET, weights_of
from nodes.model_errors import ModelError
from nodes.open_weights import OpenWeights
from nodes.packed_layers import pack
from nodes.precision import Precision
from nodes.unet_layout import structure_of_diffusers
from nodes.values import Weights
from nodes.weight_files import read_header
from nodes.weight_places import NotThisNetwork, Shape

PARTS = (".up", ".down")
"""How the names end of the two matrices whose product is added to a weight."""
CHANNELS = 4
"""Of a latent, which is all that a ControlNet takes."""


def load_control_lora(
    file: Weights,
    base: Weights,
    build: Callable[[Mapping[str, Any]], Module],
    precision: Precision,
    device: torch.device,
) -> Module:
    """The ControlNet that a file makes of a U-Net: what the file has itself, and the rest with its changes.

    Raises ModelError for a file that was made for another U-Net.
    """
    shapes = canonical_shapes(base, "U-Net")
    own, config = _planned(file, base, shapes)
    with torch.device("meta"):
        module = build(config)
    wanted = {name: tuple(weight.shape) for name, weight in module.state_dict().items()}
    others, files = weights_of(base, UNET, wanted), OpenWeights()

    def tensor(name: str) -> Tensor | None:
        return files.tensor(file.path, own[name]).float() if name in own else None

    def weight(name: str, shape: Shape) -> Tensor:
        plain = tensor(name)
        plain = others(base, name) if plain is None else plain
        stem = name.removesuffix(".weight")
        up, down = (tensor(f"{stem}{part}") for part in PARTS)
        if plain is None:
            raise _foreign(file, base, f"neither of them has {name}")
        try:
            changed = plain if up is None or down is None else plain.flatten(1) + up.flatten(1) @ down.flatten(1)
            return changed.reshape(shape)
        except RuntimeError as error:
            raise _foreign(file, base, f"its change to {name} is of another size") from error

    read = {name: weight(name, shape).to(device, DTYPES[precision.dtype]) for name, shape in wanted.items()}
    module.load_state_dict(read, assign=True)
    module.requires_grad_(False).eval()
    if device.type == "cpu":
        pack(module, DTYPES[precision.dtype])
    return cast(Any, module).to(memory_format=torch.channels_last) if precision.channels_last else module


def _planned(file: Weights, base: Weights, shapes: Mapping[str, Shape]) -> tuple[dict[str, str], dict[str, Any]]:
    """The file's tensors by diffusers' names, and the configuration of the ControlNet."""
    found = {name: entry.shape for name, entry in read_header(file.path).items()}
    try:
        table = controlnet_names(structure_of_diffusers(shapes), found)
        named = {table.diffusers(name): name for name in found}
        whole = {name: found[original] for name, original in named.items() if not name.endswith(PARTS)}
        config = controlnet_config({**shapes, **whole})
    except NotThisNetwork as error:
        raise _foreign(file, base, str(error)) from error
    if config["in_channels"] != CHANNELS:
        raise _foreign(file, base, f"the model takes {config['in_channels']} channels, and it {CHANNELS}")
    return named, config


def _foreign(file: Weights, base: Weights, reason: str) -> ModelError:
    advice = "Choose a ControlLoRA that was made for models of its family."
    return ModelError(file.path, f"this ControlLoRA does not fit the model {base.name!r}: {reason}", advice)
