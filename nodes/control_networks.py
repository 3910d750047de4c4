"""What ControlNets and T2I-Adapters add to a U-Net (Zhang et al. 2023, Mou et al. 2023)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Module

from graph.collector import collector_paused
from graph.identity import digest, encode
from nodes.added_inputs import Told
from nodes.control_fit import check_config, check_features
from nodes.control_layout import controlnet_plan
from nodes.control_loras import load_control_lora
from nodes.materialise import DTYPES, UNET, Kind, load_network, parameter_count
from nodes.model_folders import UNET_STEM
from nodes.models import ModelPool
from nodes.network_patches import Downscaled, NetworkPatch
from nodes.precision import Precision
from nodes.t2i_adapter_layout import adapter_plan
from nodes.values import ControlNet, Model, Weights
from nodes.weight_places import Place

CONTROL_NET = Kind(UNET_STEM, controlnet_plan, lambda name: (Place(name),), merged=UNET)
T2I_ADAPTER = Kind(UNET_STEM, adapter_plan, lambda name: (Place(name),))

KEPT = 4
"""So many answers of a network about pictures are kept."""
_ANSWERS = WeakKeyDictionary[Module, list[tuple[Tensor, Any]]]()

Hint = Float[Tensor, "batch 3 height width"]
Features = Float[Tensor, "batch width height width"]


@dataclass(frozen=True, slots=True, eq=False)
class Steering:
    """A network that takes part in a pass, its pictures for all of the pass, and how strongly they steer."""

    network: ControlNet
    hint: Hint
    strength: float


class Residuals(NamedTuple):
    """What is added inside a U-Net: to its skip connections, in its middle, and at the ends of its levels."""

    skips: tuple[Features, ...] = ()
    middle: Features | None = None
    levels: tuple[Features, ...] = ()

    def plus(self, other: "Residuals") -> "Residuals":
        middles = [each for each in (self.middle, other.middle) if each is not None]
        middle = middles[0] + middles[1] if len(middles) > 1 else middles[0] if middles else None
        return Residuals(_sums(self.skips, other.skips), middle, _sums(self.levels, other.levels))

    def arguments(self, dtype: torch.dtype) -> dict[str, Any]:
        """By the names that diffusers gives them."""
        named: dict[str, Any] = {}
        if self.middle is not None:
            named["down_block_additional_residuals"] = [each.to(dtype) for each in self.skips]
            named["mid_block_additional_residual"] = self.middle.to(dtype)
        if self.levels:
            named["down_intrablock_additional_residuals"] = [each.to(dtype) for each in self.levels]
        return named

    def within(self, patches: Sequence[NetworkPatch]) -> "Residuals":
        """Without what was made for a higher resolution than a U-Net with patches works at."""
        blocks = [patch.block + patch.after_skip for patch in patches if isinstance(patch, Downscaled)]
        if not blocks:
            return self
        zero = torch.zeros(())
        skips = tuple(each if at < min(blocks) else zero.to(each) for at, each in enumerate(self.skips))
        return Residuals(skips, None if self.middle is None else zero.to(self.middle))


def _sums(first: Sequence[Features], second: Sequence[Features]) -> tuple[Features, ...]:
    if not first or not second:
        return (*first, *second)
    return tuple(a + b for a, b in zip(first, second, strict=True))


def residuals(
    pool: ModelPool,
    model: Model,
    steerings: Sequence[Steering],
    x: Float[Tensor, "batch channels height width"],
    timesteps: Float[Tensor, " batch"],
    tokens: Float[Tensor, "batch tokens width"],
    told: Told | None,
) -> Residuals:
    """What several networks add up to, for a latent scaled as the model expects it. Raises ForeignControl."""
    total = Residuals()
    unet = cast(Any, pool.unet(model)).config
    with torch.inference_mode():
        for steering in steerings:
            module, precision = _network(pool, model, steering.network)
            dtype = DTYPES[precision.dtype]
            layout = torch.channels_last if precision.channels_last else torch.contiguous_format
            hint = steering.hint.to(dtype=dtype, memory_format=layout)
            if steering.network.design == "T2I-Adapter":
                found = _features(module, hint)
                check_features(model, unet, steering.network, [each.shape for each in found.levels], x.shape)
            else:
                check_config(model, unet, steering.network, cast(Any, module).config)
                more = _told(module, told, dtype)
                latent = x.to(dtype=dtype, memory_format=layout)
                found = _controlled(module, steering.network, hint, latent, timesteps, tokens.to(dtype), more)
            total = total.plus(_scaled(found, steering.strength, steering.network.pooled))
    return total


def _network(pool: ModelPool, model: Model, control: ControlNet) -> tuple[Module, Precision]:
    """The network, and the precision it runs in."""
    with collector_paused():
        match control.design:
            case "ControlNet" | "ControlLoRA":
                from diffusers.models.controlnets.controlnet import ControlNetModel as Network
            case "ControlNet union":
                from diffusers.models.controlnets.controlnet_union import ControlNetUnionModel as Network
            case "T2I-Adapter":
                from diffusers.models.adapter import T2IAdapter as Network
    build = cast(Any, Network).from_config
    if control.design == "ControlLoRA":
        # It takes the model's weights, patches and all, so that it is another network with every model.
        same = digest(b"control", encode([control.weights.identity, model.weights.identity])).hex()
        weights, precision = (
            replace(control.weights, identity=same),
            replace(pool.unet_precision(model), rounded_to=None),
        )
    else:
        weights, precision = control.weights, pool.policy.unet(_parameters(control.weights))

    def load(device: torch.device) -> Module:
        if control.design == "ControlLoRA":
            return load_control_lora(control.weights, model.weights, build, precision, device)
        kind = T2I_ADAPTER if control.design == "T2I-Adapter" else CONTROL_NET
        return load_network(control.weights, kind, build, precision, device, pool.prepared)

    return pool.network(weights, control.design, precision, load), precision


@lru_cache(maxsize=64)
def _parameters(weights: Weights) -> int:
    return parameter_count(weights, UNET_STEM)


def _told(module: Module, told: Told | None, dtype: torch.dtype) -> dict[str, Any]:
    """What a network of the SDXL family is told beside the text."""
    if cast(Any, module).config.addition_embed_type is None or told is None or told.pooled is None:
        return {}
    return {"added_cond_kwargs": {"text_embeds": told.pooled.to(dtype), "time_ids": told.sizes}}


def _controlled(
    module: Module,
    control: ControlNet,
    hint: Hint,
    x: Tensor,
    timesteps: Tensor,
    tokens: Tensor,
    more: Mapping[str, Any],
) -> Residuals:
    config, first = cast(Any, module).config, cast(Any, module).conv_in
    embedded = _seen(module, cast(Any, module).controlnet_cond_embedding, hint)
    asked = _view(module, controlnet_cond_embedding=_Answer(embedded))
    if control.design != "ControlNet union":
        skips, middle = asked(x, timesteps, tokens, hint, return_dict=False, **more)
        return Residuals(tuple(skips), middle)
    kinds: int = config.num_control_type
    chosen = torch.zeros(len(x), kinds, device=x.device)
    if control.type is None:
        # As if it were no union: the picture is taken in as it is, whatever it shows.
        asked, hints, indices = _view(module, conv_in=_Added(first, embedded)), [], []
    elif control.type >= kinds:
        raise ValueError(
            f"the ControlNet {control.weights.name!r} knows {kinds} kinds of pictures, and not the one that "
            "SetUnionControlNetType says; choose another type, or auto"
        )
    else:
        chosen[:, control.type] = 1.0
        hints, indices = [hint], [control.type]
    scales = [1.0]
    skips, middle = asked(
        x, timesteps, tokens, hints, chosen, indices, scales, from_multi=True, return_dict=False, **more
    )
    return Residuals(tuple(skips), middle)


def _features(module: Module, hint: Hint) -> Residuals:
    parts = cast(Any, module)
    picture = hint.mean(1, keepdim=True) if parts.config.in_channels == 1 else hint
    return Residuals(levels=tuple(_seen(module, module, picture)))


def _seen(network: Module, part: Module, picture: Tensor) -> Any:
    """What a part of a network makes of a picture; steps ask it the same, so the last few answers are kept."""
    if not picture.is_cpu:  # where it is quick, and comparing would make each step wait for the device
        return part(picture)
    answers = _ANSWERS.setdefault(network, [])
    for known, answer in answers:
        if torch.equal(known, picture):
            return answer
    answer = part(picture)
    answers.append((picture, answer))
    del answers[:-KEPT]
    return answer


def _view(module: Module, **others: Module) -> Module:
    """The network with other modules in the places of some; it shares all weights."""
    view = module.__new__(type(module))
    view.__dict__ = {**vars(module), "_modules": {**vars(module)["_modules"], **others}}
    return view


class _Answer(Module):
    """Gives what is known already."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, picture: Tensor) -> Tensor:
        return self.answer


class _Added(Module):
    """A first convolution, and what is added behind it."""

    def __init__(self, first: Module, added: Tensor) -> None:
        super().__init__()
        self.first = first
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.added


def _scaled(found: Residuals, strength: float, pooled: bool) -> Residuals:
    def scaled(features: Features) -> Features:
        return (features.mean((2, 3), keepdim=True) if pooled else features) * strength

    middle = None if found.middle is None else scaled(found.middle)
    return Residuals(tuple(map(scaled, found.skips)), middle, tuple(each * strength for each in found.levels))
