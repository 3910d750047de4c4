"""A network that computes otherwise: a copy of its modules that shares every weight, with patches in their places.

The network itself stays as it is, so that others may compute with it at the same time.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import Module, ModuleList

from nodes.architectures import for_transformers, for_unets
from nodes.compiled_network import CompiledNetwork
from nodes.grounding import Layers, ground
from nodes.hypernetwork_layers import apply_hypernetwork
from nodes.hypernetworks import Hypernetwork
from nodes.maths.hidden_features import free_u
from nodes.maths.resize import RESIZERS, Method
from nodes.network_patches import Compiled, Downscaled, FreeU, Grounded, NetworkPatch, PictureAttention, SkippedBlocks
from nodes.patched_attention import patch_attention
from nodes.picture_attention import attend_to_pictures
from nodes.values import Model, Weights

UP_BLOCKS = "UpBlock2D", "CrossAttnUpBlock2D"
ALWAYS = 62
"""No latent is a multiple of so many doublings: diffusers then tells upsamplers the size of the skip connection."""

VIEWS = 8
"""So many views of a network are kept."""
_VIEWS = WeakKeyDictionary[Module, dict[tuple[NetworkPatch, ...], Module]]()

LayersOf = Callable[[Weights], Layers]
Between = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # (hidden, skip) -> (hidden, skip)


def check_architecture(model: Model) -> None:
    """Raise WrongArchitecture if one of a model's patches is for another kind of network."""
    for patch in model.network_patches:
        match patch:
            case Compiled():
                pass
            case SkippedBlocks():
                for_transformers(model, patch.made_by)
            case _:
                for_unets(model, patch.made_by)


def patched(network: Module, patches: Sequence[NetworkPatch], layers: LayersOf | None = None) -> Module:
    """The network with patches, which shares its weights. ValueError for a network they do not fit.

    It is made once and kept as long as the network is, among the last few.

    Args:
        layers: GLIGEN's layers by reference, for networks that get some.
    """
    views = _VIEWS.setdefault(network, {})
    key = tuple(patches)
    if (view := views.get(key)) is None:
        view = views[key] = _made(network, patches, layers)
        for oldest in list(views)[:-VIEWS]:
            views.pop(oldest, None)
    return view


def _made(network: Module, patches: Sequence[NetworkPatch], layers: LayersOf | None) -> Module:
    view = _twin(network, {})
    parts = cast(Any, view)
    between: list[Between] = []
    attention: list[NetworkPatch] = []
    pictures: list[PictureAttention] = []
    backend = ""
    for patch in patches:
        match patch:
            case FreeU():
                between.append(_free_u(patch, parts.config.block_out_channels[0]))
            case Downscaled():
                _downscale(view, patch)
                between.append(_fitted(patch.up))
                parts.num_upsamplers = ALWAYS
            case Hypernetwork():
                apply_hypernetwork(view, patch)
            case PictureAttention():
                pictures.append(patch)
            case Grounded() if layers is not None:
                ground(view, network, layers(patch.gligen))
            case SkippedBlocks():
                _skip(view, patch)
            case Compiled():
                backend = patch.backend
            case _:
                attention.append(patch)
    if between:
        for at, block in enumerate(parts.up_blocks):
            if type(block).__name__ not in UP_BLOCKS:
                raise ValueError(
                    f"this patch is for U-Nets whose up blocks are {' or '.join(UP_BLOCKS)}, "
                    f"but this one has {type(block).__name__}; take the patch out"
                )
            parts.up_blocks[at] = _UpBlock(block, between)
    if attention:
        patch_attention(view, attention)
    if pictures:
        attend_to_pictures(view, pictures)
    return CompiledNetwork(view, backend) if backend else view


def _skip(view: Module, patch: SkippedBlocks) -> None:
    """Leave blocks out of a transformer."""
    for name, skipped in (("transformer_blocks", patch.double), ("single_transformer_blocks", patch.single)):
        blocks = cast("Sequence[Module]", getattr(view, name, ()))
        if blocks:
            left = ModuleList(block for number, block in enumerate(blocks) if number not in skipped)
            setattr(view, name, left)


def _twin(module: Module, made: dict[int, Module]) -> Module:
    """A module of its own with the same weights, made of such modules."""
    if id(module) not in made:
        twin = made[id(module)] = module.__new__(type(module))
        twin.__dict__ = {
            name: value.copy() if name.endswith("_hooks") else value for name, value in vars(module).items()
        }
        children = vars(module)["_modules"].items()
        twin.__dict__["_modules"] = {name: child and _twin(child, made) for name, child in children}
    return made[id(module)]


class _UpBlock(Module):
    """An up block of diffusers, its own modules in its own order, with a change to what each layer is given."""

    def __init__(self, block: Module, between: Sequence[Between]) -> None:
        super().__init__()
        parts = cast(Any, block)
        self.resnets, self.upsamplers = parts.resnets, parts.upsamplers
        self.has_cross_attention = bool(getattr(parts, "has_cross_attention", False))
        self.attentions = parts.attentions if self.has_cross_attention else None
        self.between = between

    def forward(
        self,
        hidden_states: Tensor,
        res_hidden_states_tuple: tuple[Tensor, ...],
        temb: Tensor | None = None,
        upsample_size: object = None,
        **attending: object,
    ) -> Tensor:
        hidden = hidden_states
        for at, (resnet, skip) in enumerate(zip(self.resnets, reversed(res_hidden_states_tuple), strict=True)):
            for change in self.between:
                hidden, skip = change(hidden, skip)
            hidden = resnet(torch.cat([hidden, skip], dim=1), temb)
            if self.attentions is not None:
                hidden = self.attentions[at](hidden, return_dict=False, **attending)[0]
        for upsampler in self.upsamplers or ():
            hidden = upsampler(hidden, upsample_size)
        return hidden


def _free_u(patch: FreeU, width: int) -> Between:
    factors = {
        4 * width: (patch.backbone[0], patch.skip[0]),
        2 * width: (patch.backbone[1], patch.skip[1]),
    }

    def change(hidden: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        if (found := factors.get(hidden.shape[1])) is None:
            return hidden, skip
        return free_u(hidden, skip, *found, patch.by_mean)

    return change


def _fitted(method: Method) -> Between:
    """The backbone at the size of the skip connection."""

    def change(hidden: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        if hidden.shape[2:] != skip.shape[2:]:
            hidden = _resized(hidden, skip.shape[-2], skip.shape[-1], method)
        return hidden, skip

    return change


def _resized(hidden: Tensor, height: int, width: int, method: Method) -> Tensor:
    return RESIZERS[method](hidden.float(), height, width).to(hidden.dtype)


def _downscale(view: Module, patch: Downscaled) -> None:
    blocks = _input_blocks(view)
    if patch.block >= len(blocks):
        return

    def smaller(hidden: Tensor) -> Tensor:
        height, width = (max(1, round(side / patch.factor)) for side in hidden.shape[-2:])
        return _resized(hidden, height, width, patch.down)

    def before(module: Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return smaller(args[0]), *args[1:]

    def after(module: Module, args: object, output: Tensor | tuple[Tensor]) -> Tensor | tuple[Tensor]:
        return smaller(output) if isinstance(output, Tensor) else (smaller(output[0]),)

    if patch.after_skip:
        following = [*blocks, [cast(Any, view).mid_block.resnets[0]]][patch.block + 1]
        following[0].register_forward_pre_hook(before)
    else:
        blocks[patch.block][-1].register_forward_hook(after)


def _input_blocks(view: Module) -> list[list[Module]]:
    """The modules of each input block, as the original layout counts them; a skip connection leaves each."""
    parts = cast(Any, view)
    blocks: list[list[Module]] = [[parts.conv_in]]
    for block in parts.down_blocks:
        layers = [block.resnets, getattr(block, "attentions", None)]
        blocks += [list(modules) for modules in zip(*filter(None, layers), strict=True)]
        blocks += [[downsampler] for downsampler in block.downsamplers or ()]
    return blocks
