"""A prompt becomes conditioning: weights, tokens, chunks of 77, states. Imports torch only to encode."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graph.folders import Folders
from nodes.clip_tokenizer import ClipTokenizer
from nodes.embeddings import find, pieces, read_vectors, warn_unknown
from nodes.maths.prompt_weights import Weighted, parse_weights
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


Learn = Callable[[str], tuple[Sequence[int], str] | None]
"""The ids that stand for an embedding's vectors, and what of its name is text; None if there is no such embedding."""


def chunks(tokenizer: ClipTokenizer, text: str, pad: int | None = None, learn: Learn | None = None) -> list[Chunk]:
    """The tokens of a prompt in chunks of 77; at least one.

    As in ComfyUI, what is kept together is a stretch of equal weight: one of fewer than 8 tokens that does not fit
    moves to the next chunk whole, a longer one is cut where the chunk ends.
    """
    stretches = [stretch for part in parse_weights(text) for stretch in _stretches(tokenizer, part, learn)]
    return pack(stretches, tokenizer.start, tokenizer.end, tokenizer.pad if pad is None else pad)


def _stretches(tokenizer: ClipTokenizer, part: Weighted, learn: Learn | None) -> list[tuple[Sequence[int], float]]:
    """The tokens of a part of a prompt. An embedding is a stretch of its own; its vectors have the weight around it."""
    if learn is None:
        return [(tokenizer.ids(part.text), part.weight)]
    found: list[tuple[Sequence[int], float]] = []
    rest = ""
    for piece in pieces(part.text):
        learned = None if piece.name is None else learn(piece.name)
        if learned is not None:
            found.append((learned[0], part.weight))
            rest = learned[1]
        elif piece.name is None:
            found.append((tokenizer.ids(rest + piece.text), part.weight))
            rest = ""
    return [*found, (tokenizer.ids(rest), part.weight)] if rest else found


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


def encode_prompt(
    pool: "ModelPool", clip: Clip, text: str, second: str | None = None, folders: Folders | None = None
) -> Conditioning:
    """The states of a prompt's tokens, its chunks one after another, and the pooled state of the first chunk.

    A token's weight moves its state away from, or towards, the state that an empty prompt has at that place. Of two
    encoders the states are side by side, as many as the shorter has, and the pooled state is the second's.

    Args:
        second: another text for the second encoder; the shorter of the two is filled up with empty chunks.
        folders: where the embeddings are that the text mentions; without, `embedding:name` is plain text.
    """
    import torch

    encoders = clip.encoders
    texts = [text, text if second is None else second]
    words = [_Learned(pool, each, folders, second=at > 0) for at, each in enumerate(encoders)]
    filled = [
        chunks(pool.tokenizer(each), said, each.pad, own.learn if folders else None)
        for each, said, own in zip(encoders, texts, words, strict=False)
    ]
    longest = 0 if second is None else max(map(len, filled))
    encoded = [
        _encoded(pool, each, parts, longest, own.vectors())
        for each, parts, own in zip(encoders, filled, words, strict=True)
    ]
    length = min(states.shape[1] for states, _ in encoded)
    tokens = torch.cat([states[:, :length] for states, _ in encoded], dim=-1)
    return Conditioning((Prompt(tokens=tokens, pooled=encoded[-1][1]),))


class _Learned:
    """The embeddings that a prompt mentions, as one of its encoders has them; each is read once."""

    def __init__(self, pool: "ModelPool", clip: Clip, folders: Folders | None, *, second: bool) -> None:
        self._pool, self._clip, self._folders, self._second = pool, clip, folders, second
        self._known: dict[str, tuple[Sequence[int], str] | None] = {}
        self._vectors: list[Tensor] = []
        self._count = 0

    def learn(self, name: str) -> tuple[Sequence[int], str] | None:
        if name not in self._known:
            self._known[name] = self._read(name)
        return self._known[name]

    def _read(self, name: str) -> tuple[Sequence[int], str] | None:
        assert self._folders is not None
        found = find(self._folders, name)
        if found is None:
            warn_unknown(self._folders, name)
            return None
        vectors = read_vectors(found.path, self._pool.text_width(self._clip), second=self._second)
        if vectors is None:
            return (), found.rest
        first = self._count
        self._vectors.append(vectors)
        self._count += len(vectors)
        return [-1 - first - at for at in range(len(vectors))], found.rest

    def vectors(self) -> "Float[Tensor, 'words width'] | None":
        import torch

        return torch.cat(self._vectors) if self._vectors else None


def _encoded(
    pool: "ModelPool",
    clip: Clip,
    filled: Sequence[Chunk],
    least: int,
    vectors: "Float[Tensor, 'words width'] | None" = None,
) -> "tuple[Float[Tensor, '1 tokens width'], Float[Tensor, '1 width']]":
    """States and pooled state from one encoder, of at least so many chunks."""
    import torch

    tokenizer = pool.tokenizer(clip)
    blank = pack([], tokenizer.start, tokenizer.end, tokenizer.pad if clip.pad is None else clip.pad)
    filled = [*filled, *blank * (least - len(filled))]
    weighted = any(weight != 1.0 for chunk in filled for weight in chunk.weights)
    ids = torch.tensor([chunk.ids for chunk in (*filled, *(blank if weighted else []))])
    encoded = [pool.encode_text(clip, batch, vectors) for batch in torch.split(ids, AT_ONCE)]
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
