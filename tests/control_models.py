"""ControlNets and T2I-Adapters for the small models, in the original layout and, converted elsewhere, in diffusers'."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from tests import original_layouts as layouts
from tests import small_models, tiny_models
from tests.small_models import SMALL

HINT = (16, 16, 32, 32, 32, 32, 32)
Weights = dict[str, Tensor]


def control_weights(family: str, seed: int = 1) -> Weights:
    """A ControlNet for a small model, in the original layout."""
    return layouts.random_weights(layouts.controlnet(SMALL[family].unet, HINT), seed)


def control_config(family: str) -> dict[str, Any]:
    unet = small_models.unet_config(SMALL[family].unet)
    left_out = ("sample_size", "up_block_types")
    own = {name: value for name, value in unet.items() if name not in left_out}
    return {**own, "in_channels": 4, "conditioning_embedding_out_channels": list(HINT[::2])}


def control_net(family: str, weights: Mapping[str, Tensor]) -> Any:
    """diffusers' network of weights in the original layout, by diffusers' own converter."""
    from diffusers.loaders import single_file_utils
    from diffusers.models.controlnets.controlnet import ControlNetModel

    config = control_config(family)
    convert: Any = single_file_utils
    module = cast(Any, ControlNetModel)(**config)
    converted = convert.convert_controlnet_checkpoint(dict(weights), config)
    # It leaves out what networks of the SDXL family are told.
    told = {"label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2"}
    for original, name in told.items() if "label_emb.0.0.weight" in weights else ():
        converted |= {f"{name}.{kind}": weights[f"{original}.{kind}"] for kind in ("weight", "bias")}
    wanted = module.state_dict()
    module.load_state_dict({name: tensor.reshape(wanted[name].shape) for name, tensor in converted.items()})
    return module.eval()


def union(kinds: int = 8) -> Any:
    """A union of ControlNets for the small SDXL, which exists in diffusers' layout alone."""
    from diffusers.models.controlnets.controlnet_union import ControlNetUnionModel

    tiny_models.seed(2)
    config = control_config("SDXL")
    widths = {"num_trans_channel": 64, "num_proj_channel": 64, "num_control_type": kinds}
    module = cast(Any, ControlNetUnionModel)(**config, **widths)
    shapes = {name: tuple(weight.shape) for name, weight in module.state_dict().items()}
    module.load_state_dict(layouts.random_weights(shapes, 3))
    return module.eval()


def adapter(kind: str, weights: Mapping[str, Tensor]) -> Any:
    """diffusers' network of a T2I-Adapter's weights in the original layout, renamed one by one."""
    from diffusers.models.adapter import T2IAdapter

    light = kind == "light_adapter"
    first = weights["body.0.in_conv.weight" if light else "conv_in.weight"]
    factor = 16 if kind == "full_adapter_xl" else 8
    channels = ADAPTERS[kind][1]
    config = {"in_channels": first.shape[1] // factor**2, "channels": channels, "downscale_factor": factor}
    module = cast(Any, T2IAdapter)(**config, num_res_blocks=2, adapter_type=kind)
    module.load_state_dict({_adapter_name(name, light): tensor for name, tensor in weights.items()})
    return module.eval()


def _adapter_name(name: str, light: bool) -> str:
    parts = name.split(".")
    if parts[0] == "conv_in":
        return f"adapter.{name}"
    if light:
        return "adapter." + ".".join("resnets" if at == 2 and part == "body" else part for at, part in enumerate(parts))
    level, block = divmod(int(parts[1]), 2)
    inside = parts[2:] if parts[2] == "in_conv" else ["resnets", str(block), *parts[2:]]
    return ".".join(["adapter", "body", str(level), *inside])


ADAPTERS: dict[str, tuple[layouts.Shapes, list[int]]] = {
    "full_adapter": (layouts.full_adapter((32, 64), channels=1), [32, 64]),
    "light_adapter": (layouts.light_adapter((32, 64, 64), blocks=2), [32, 64]),
    "full_adapter_xl": (layouts.full_adapter((64, 64, 64, 64), factor=16), [64, 64, 64, 64]),
}
"""Of each kind: the original layout, and the widths that diffusers is told of; a light one's last two are one."""


def write(path: Path, weights: Mapping[str, Tensor], prefix: str = "", **extra: Tensor) -> Path:
    return layouts.write_weights(path, {**{f"{prefix}{name}": weight for name, weight in weights.items()}, **extra})


def write_module(path: Path, module: Any) -> Path:
    """A network in diffusers' layout: as a folder, or as one file."""
    if path.suffix == ".safetensors":
        return write(path, cast("Weights", module.state_dict()))
    tiny_models.save(cast(torch.nn.Module, module), path)
    return path
