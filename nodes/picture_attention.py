"""Cross-attention that looks at pictures beside the text, each as strongly as its patch says."""

import math
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import Module

from nodes.ip_adapter_layout import ATTENTION, attention_name, cross_attentions
from nodes.narrow_weights import like
from nodes.network_patches import PictureAttention
from nodes.open_weights import OpenWeights

_NEGATIVE: ContextVar[Tensor | None] = ContextVar("negative", default=None)
_SIZE: ContextVar[tuple[int, int]] = ContextVar("size")
"""Height and width of the latent."""


@contextmanager
def on_sides(negative: Bool[Tensor, " batch"] | None) -> Generator[None]:
    """Say which samples of a pass are on the negative side; None: none is."""
    token = _NEGATIVE.set(negative)
    try:
        yield
    finally:
        _NEGATIVE.reset(token)


def attend_to_pictures(view: Module, patches: Sequence[PictureAttention]) -> None:
    """Put pictures beside the text in a network, in place: in a copy that nobody else computes with."""
    view.register_forward_pre_hook(_note_size)
    files, computed = OpenWeights(), like(view)
    named = dict(cast("Iterable[tuple[str, Any]]", view.named_modules()))
    for at, name in enumerate(cross_attentions(f"{name}." for name in named)):
        attention = named[name]
        seen = [_seen(patch, files, at, attention.heads, computed) for patch in patches]
        attention.processor = _CrossAttention(seen)


def _note_size(module: Module, args: tuple[Any, ...]) -> None:
    latent: Tensor = args[0]
    _SIZE.set((latent.shape[-2], latent.shape[-1]))


@lru_cache(maxsize=256)
def grid(tokens: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of a layer's places, in proportion to height and width as nearly as there are so many."""
    divisors = (rows for rows in range(1, tokens + 1) if tokens % rows == 0)
    rows = min(divisors, key=lambda rows: abs(math.log(rows * rows / tokens * width / height)))
    return rows, tokens // rows


class _Seen(NamedTuple):
    """Keys and values of pictures in one layer, on the positive side and on the negative one."""

    keys: Float[Tensor, "2 heads tokens width"]
    values: Float[Tensor, "2 heads tokens width"]
    weight: float
    mask: Float[Tensor, "1 height width"] | None

    def weights(self, tokens: int) -> float | Float[Tensor, "tokens 1"]:
        """How much they count, at each place of a layer."""
        if self.mask is None:
            return self.weight
        size = grid(tokens, *_SIZE.get())
        return self.weight * F.interpolate(self.mask[None], size, mode="bicubic").reshape(-1, 1).to(self.keys)


def _seen(patch: PictureAttention, files: OpenWeights, at: int, heads: int, computed: Tensor) -> _Seen:
    tokens = torch.cat([patch.pictures.tokens, patch.pictures.negative])

    def projected(name: str) -> Tensor:
        weight = files.tensor(patch.adapter.path, f"{ATTENTION}{attention_name(at)}.{name}.weight")
        return _by_heads(F.linear(tokens, weight.float()).to(computed), heads)

    mask = None if patch.pictures.mask is None else patch.pictures.mask.to(computed.device)
    return _Seen(projected("to_k_ip"), projected("to_v_ip"), patch.weight, mask)


def _by_heads(tensor: Tensor, heads: int) -> Float[Tensor, "batch {heads} tokens width"]:
    batch, tokens, _ = tensor.shape
    return tensor.view(batch, tokens, heads, -1).transpose(1, 2)


class _CrossAttention:
    """Cross-attention of diffusers' transformers, to which that to pictures is added."""

    def __init__(self, seen: Sequence[_Seen]) -> None:
        self.seen = seen

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, *_: object, **__: object
    ) -> Tensor:
        query, key, value = (
            _by_heads(projection(tokens), attn.heads)
            for projection, tokens in (
                (attn.to_q, hidden_states),
                (attn.to_k, encoder_hidden_states),
                (attn.to_v, encoder_hidden_states),
            )
        )
        out = F.scaled_dot_product_attention(query, key, value)
        negative = _NEGATIVE.get()
        side = torch.zeros(len(query), dtype=torch.long, device=query.device) if negative is None else negative.long()
        for seen in self.seen:
            shown = F.scaled_dot_product_attention(query, seen.keys[side], seen.values[side])
            out = out + seen.weights(query.shape[2]) * shown
        return attn.to_out[0](out.transpose(1, 2).flatten(2))
