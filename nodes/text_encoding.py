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


def chunks(tokenizer: ClipTokenizer, text: str, pad: int | None = None) -> list[Chunk]:
    """The tokens of a prompt in chunks of 77; at least one.

    As in ComfyUI, what is kept together is a stretch of equal weight: one of fewer than 8 tokens that does not fit
    moves to the next chunk whole, a longer one is cut where the chunk ends.
    """
    stretches = [(tokenizer.ids(part.text), part.weight) for part in parse_weights(text)]
    return pack(stretches, tokenizer.start, tokenizer.end, tokenizer.pad if pad is None else pad)


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


def encode_prompt(pool: "ModelPool", clip: Clip, text: str, second: str | None = None) -> Conditioning:
    """The states of a prompt's tokens, its chunks one after another, and the pooled state of the first chunk.

    A token's weight moves its state away from, or towards, the state that an empty prompt has at that place. Of two
    encoders the states are side by side, as many as the shorter has, and the pooled state is the second's.

    Args:
        second: another text for the second encoder; the shorter of the two is filled up with empty chunks.
    """
    import torch

    encoders = [clip, *([clip.second] if clip.second else [])]
    texts = [text, text if second is None else second]
    filled = [chunks(pool.tokenizer(each), said, each.pad) for each, said in zip(encoders, texts, strict=False)]
    longest = 0 if second is None else max(map(len, filled))
    encoded = [_encoded(pool, each, parts, longest) for each, parts in zip(encoders, filled, strict=True)]
    length = min(states.shape[1] for states, _ in encoded)
    tokens = torch.cat([states[:, :length] for states, _ in encoded], dim=-1)
    return Conditioning((Prompt(tokens=tokens, pooled=encoded[-1][1]),))


def _encoded(
    pool: "ModelPool", clip: Clip, filled: Sequence[Chunk], least: int
) -> "tuple[Float[Tensor, '1 tokens width'], Float[Tensor, '1 width']]":
    """States and pooled state from one encoder, of at least so many chunks."""
    import torch

    tokenizer = pool.tokenizer(clip)
    blank = pack([], tokenizer.start, tokenizer.end, tokenizer.pad if clip.pad is None else clip.pad)
    filled = [*filled, *blank * (least - len(filled))]
    weighted = any(weight != 1.0 for chunk in filled for weight in chunk.weights)
    ids = torch.tensor([chunk.ids for chunk in (*filled, *(blank if weighted else []))])
    encoded = [pool.encode_text(clip, batch) for batch in torch.split(ids, AT_ONCE)]
    states = torch.cat([hidden for hidden, _ in encoded])
    if weighted:
        weights = torch.tensor([chunk.weights for chunk in filled], device=states.device)
        states = weigh(states[:-1], states[-1], weights)
    return states.reshape(1, -1, states.shape[-1]), encoded[0][1][:1]


def weigh(
    states: "Float[Tensor, 'chunks tokens width']",
    empty: "Float[Tensor, 'tokens width']",
    weights: "Float[Tensor, 'chunks tokens']",
) -> "Float[Tensor, 'chunks tokens width']":
    """States moved away from those of an empty prompt by their weights; those of weight 1 stay exactly as they are."""
    import torch

    scale = weights[..., None]
    return torch.where(scale == 1, states, (states - empty) * scale + empty)
