"""A network that computes otherwise: a copy of its modules that shares every weight, with patches in their places.

The network itself stays as it is, so that others may compute with it at the same time.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module

from nodes.maths.hidden_features import free_u, merged_tokens, tile_count, tiled, untiled
from nodes.maths.resize import RESIZERS, Method
from nodes.network_patches import (
    Downscaled,
    FreeU,
    IdentityAttention,
    MergedTokens,
    NetworkPatch,
    RecordedAttention,
    TiledAttention,
)

UP_BLOCKS = "UpBlock2D", "CrossAttnUpBlock2D"
ALWAYS = 62
"""No latent is a multiple of so many doublings: diffusers then tells upsamplers the size of the skip connection."""

Between = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # (hidden, skip) -> (hidden, skip)


def patched(network: Module, patches: Sequence[NetworkPatch]) -> Module:
    """The network with patches, which shares its weights. ValueError for a network they do not fit."""
    view = _twin(network, {})
    parts = cast(Any, view)
    between: list[Between] = []
    attention: list[NetworkPatch] = []
    for patch in patches:
        match patch:
            case FreeU():
                between.append(_free_u(patch, parts.config.block_out_channels[0]))
            case Downscaled():
                _downscale(view, patch)
                between.append(_fitted(patch.up))
                parts.num_upsamplers = ALWAYS
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
        view.register_forward_pre_hook(_note_call)
        _patch_attention(view, attention)
    return view


@contextmanager
def recorded() -> Generator[list[Tensor]]:
    """What `RecordedAttention` notes meanwhile: [batch, queries, keys], averaged over heads, one for each pass."""
    maps: list[Tensor] = []
    token = _MAPS.set(maps)
    try:
        yield maps
    finally:
        _MAPS.reset(token)


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


# Between layers


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


# Self-attention


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    """What the network is being asked: the size of the latent, and its timesteps."""

    height: int
    width: int
    timesteps: Tensor

    @property
    def timestep(self) -> float:
        """On a GPU this waits for it."""
        return self.timesteps.flatten()[0].item()


_CALL: ContextVar[_Call] = ContextVar("call")
_MAPS: ContextVar[list[Tensor] | None] = ContextVar("maps", default=None)


def _note_call(module: Module, args: tuple[Any, ...]) -> None:
    latent, timesteps, *_ = args
    _CALL.set(_Call(latent.shape[-2], latent.shape[-1], timesteps))


def _patch_attention(view: Module, patches: Sequence[NetworkPatch]) -> None:
    named = cast("Iterable[tuple[str, Module]]", view.named_modules())
    layers = [(name, module) for name, module in named if name.endswith(".attn1")]
    inside = [name for name, _ in layers if name.startswith("mid_block.")]
    for at, (name, module) in enumerate(layers):
        middle = name in inside
        queries = [patch for patch in patches if isinstance(patch, TiledAttention | MergedTokens)]
        identity = middle and any(isinstance(patch, IdentityAttention) for patch in patches)
        record = name in inside[-1:] and any(isinstance(patch, RecordedAttention) for patch in patches)
        if queries or identity or record:
            cast(Any, module).processor = _SelfAttention(at, queries, identity, record)


class _SelfAttention:
    """Self-attention of diffusers' transformers, changed: whom it asks for whom, and who is told."""

    def __init__(self, layer: int, queries: Sequence[NetworkPatch], identity: bool, record: bool) -> None:
        self.layer = layer
        self.queries = queries
        self.identity = identity
        self.record = record

    def __call__(self, attn: Any, hidden_states: Tensor, *_: object, **__: object) -> Tensor:
        asking, asked = hidden_states, hidden_states
        back: list[Callable[[Tensor], Tensor]] = []
        for patch in () if self.identity else self.queries:
            asking, asked, undo = self._changed(patch, asking, asked)
            back.append(undo)
        if self.identity:
            out = attn.to_v(asked)
        else:
            query, key, value = (
                projection(tokens).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
                for projection, tokens in ((attn.to_q, asking), (attn.to_k, asked), (attn.to_v, asked))
            )
            if self.record and (maps := _MAPS.get()) is not None:
                weights = (query.float() @ key.float().mT * query.shape[-1] ** -0.5).softmax(-1)
                maps.append(weights.mean(1))
            out = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        out = attn.to_out[0](out)
        for undo in reversed(back):
            out = undo(out)
        return out

    def _changed(
        self, patch: NetworkPatch, asking: Tensor, asked: Tensor
    ) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        """Whom attention asks for whom, and the way back."""
        call = _CALL.get()
        match patch:
            case TiledAttention() if (grid := self._tiles(patch, call, asking.shape[1])) is not None:
                tiles = tiled(asking, *grid)
                return tiles, tiles, lambda out: untiled(out, *grid)
            case MergedTokens() if asking.shape[1] == call.height * call.width:
                seed = 1000 * int(call.timestep) + self.layer
                fewer, unmerge = merged_tokens(asking, call.height, call.width, patch.ratio, seed)
                return fewer, asked, unmerge
            case _:
                return asking, asked, lambda out: out

    def _tiles(self, patch: TiledAttention, call: _Call, tokens: int) -> tuple[int, int, int, int] | None:
        """Height and width of the layer's grid, and how many rows and columns of tiles to cut it into."""
        for depth in range(patch.depth + 1):
            height, width = call.height / 2**depth, call.width / 2**depth
            if height * width == tokens and height.is_integer() and width.is_integer():
                smallest = patch.tile * (2**depth if patch.scale_depth else 1)
                now = call.timestep if patch.options > 2 else 0  # only a choice among several needs it
                rows, columns = (
                    tile_count(int(side), smallest, patch.options, f"{now} {self.layer} {axis}")
                    for axis, side in enumerate((height, width))
                )
                return (int(height), int(width), rows, columns) if rows * columns > 1 else None
        return None
