"""Self-attention that is patched: whom places look at, in tiles or by merged tokens, and who is told of it."""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module

from nodes.maths.hidden_features import merged_tokens, tile_count, tiled, untiled
from nodes.network_patches import IdentityAttention, MergedTokens, NetworkPatch, RecordedAttention, TiledAttention


def patch_attention(view: Module, patches: Sequence[NetworkPatch]) -> None:
    """Put patches into the self-attention of a network, in place: of a copy that nobody else computes with."""
    view.register_forward_pre_hook(_note_call)
    named = cast("Iterable[tuple[str, Module]]", view.named_modules())
    layers = [(name, module) for name, module in named if name.endswith(".attn1")]
    inside = [name for name, _ in layers if name.startswith("mid_block.")]
    for at, (name, module) in enumerate(layers):
        middle = name in inside
        queries = [patch for patch in patches if isinstance(patch, TiledAttention | MergedTokens)]
        identity = middle and any(isinstance(patch, IdentityAttention) for patch in patches)
        record = name in inside[:1] and any(isinstance(patch, RecordedAttention) for patch in patches)
        if queries or identity or record:
            cast(Any, module).processor = _SelfAttention(at, queries, identity, record)


@contextmanager
def recorded() -> Generator[list[Tensor]]:
    """What `RecordedAttention` notes meanwhile: [batch, queries, keys], averaged over heads, one for each pass."""
    maps: list[Tensor] = []
    token = _MAPS.set(maps)
    try:
        yield maps
    finally:
        _MAPS.reset(token)


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
