"""A prompt becomes conditioning: weights, tokens, chunks of 77, states. Imports torch only to encode."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nodes.clip_tokenizer import ClipTokenizer
from nodes.maths.prompt_weights import parse_weights
from nodes.values import Clip, Conditioning, Prompt

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from nodes.models import ModelPool

CHUNK = 77
LARGE = 8
"""A stretch of fewer tokens than this is not cut in two by the end of a chunk."""
AT_ONCE = 16
"""Chunks that are encoded in one batch."""


@dataclass(slots=True)
class Chunk:
    """77 tokens, start and end included, and the weight of each."""

    ids: list[int]
    weights: list[float] = field(default_factory=lambda: [1.0])

    def add(self, ids: Sequence[int], weight: float) -> None:
        self.ids += ids
        self.weights += [weight] * len(ids)

    def close(self, end: int, pad: int) -> None:
        self.add([end], 1.0)
        self.add([pad] * (CHUNK - len(self.ids)), 1.0)


def chunks(tokenizer: ClipTokenizer, text: str) -> list[Chunk]:
    """The tokens of a prompt in chunks of 77; at least one.

    As in ComfyUI, what is kept together is a stretch of equal weight: one of fewer than 8 tokens that does not fit
    moves to the next chunk whole, a longer one is cut where the chunk ends.
    """
    stretches = [(tokenizer.ids(part.text), part.weight) for part in parse_weights(text)]
    return pack(stretches, tokenizer.start, tokenizer.end, tokenizer.pad)


def pack(stretches: Iterable[tuple[Sequence[int], float]], start: int, end: int, pad: int) -> list[Chunk]:
    """Fill chunks with weighted stretches of tokens."""
    found = [Chunk([start])]
    for ids, weight in stretches:
        rest = ids
        while len(rest) > (room := CHUNK - 1 - len(found[-1].ids)):
            if len(ids) >= LARGE:
                found[-1].add(rest[:room], weight)
                rest = rest[room:]
            found[-1].close(end, pad)
            found.append(Chunk([start]))
        found[-1].add(rest, weight)
    found[-1].close(end, pad)
    return found


def encode_prompt(pool: "ModelPool", clip: Clip, text: str) -> Conditioning:
    """The states of a prompt's tokens, its chunks one after another, and the pooled state of the first chunk.

    A token's weight moves its state away from, or towards, the state that an empty prompt has at that place.
    """
    import torch

    tokenizer = pool.tokenizer(clip)
    filled = chunks(tokenizer, text)
    weighted = any(weight != 1.0 for chunk in filled for weight in chunk.weights)
    empty = pack([], tokenizer.start, tokenizer.end, tokenizer.pad) if weighted else []
    ids = torch.tensor([chunk.ids for chunk in (*filled, *empty)])
    encoded = [pool.encode_text(clip, batch) for batch in torch.split(ids, AT_ONCE)]
    states = torch.cat([hidden for hidden, _ in encoded])
    if weighted:
        weights = torch.tensor([chunk.weights for chunk in filled], device=states.device)
        states = weigh(states[:-1], states[-1], weights)
    tokens = states.reshape(1, -1, states.shape[-1])
    return Conditioning((Prompt(tokens=tokens, pooled=encoded[0][1][:1]),))


def weigh(
    states: "Float[Tensor, 'chunks tokens width']",
    empty: "Float[Tensor, 'tokens width']",
    weights: "Float[Tensor, 'chunks tokens']",
) -> "Float[Tensor, 'chunks tokens width']":
    """States moved away from those of an empty prompt by their weights; those of weight 1 stay exactly as they are."""
    import torch

    scale = weights[..., None]
    return torch.where(scale == 1, states, (states - empty) * scale + empty)
