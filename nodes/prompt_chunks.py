"""The tokens of a prompt in chunks of 77, each with its weight, as CLIP takes them. Imports no torch."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from nodes.clip_tokenizer import ClipTokenizer
from nodes.embeddings import pieces
from nodes.maths.prompt_weights import Weighted, parse_weights

CHUNK = 77
LARGE = 8
"""A stretch of fewer tokens than this is not cut in two by the end of a chunk."""


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
