"""A prompt becomes conditioning: weights, tokens, states of all text encoders. Imports torch only to encode."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from graph.folders import Folders
from nodes.adapter_names import canonical_shapes
from nodes.embeddings import find, pieces, read_vectors, warn_unknown
from nodes.maths.prompt_weights import parse_weights
from nodes.model_errors import ModelError
from nodes.prompt_chunks import Chunk, chunks, pack
from nodes.t5_layout import NORM
from nodes.t5_tokenizer import load_t5_tokenizer
from nodes.text_layout import NORM as CLIP_NORM
from nodes.text_references import refuse_absent
from nodes.values import Clip, Conditioning, Prompt, Tower

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from nodes.models import ModelPool

AT_ONCE = 16
"""Chunks that are encoded in one batch."""
SD3_LENGTH, FLUX_LENGTH = 77, 256
"""Tokens up to which a text for T5 is filled up."""
SD3_CLIPS: Sequence[Tower] = ("CLIP-L", "CLIP-G")
"""In the order of their states."""
SD3_WIDTHS: Mapping[Tower, int] = {"CLIP-L": 768, "CLIP-G": 1280, "T5": 4096}
"""How wide states are where the text encoder is not there."""

Texts = Mapping[Tower, str]
"""What each text encoder is to read. Those of Stable Diffusion 3 that are to read nothing are left out."""


class Encoded(NamedTuple):
    """States of tokens, and the pooled state of the whole text."""

    states: "Float[Tensor, '1 tokens width']"
    pooled: "Float[Tensor, '1 width']"


def encode_prompt(pool: "ModelPool", clip: Clip, text: str | Texts, folders: Folders | None = None) -> Conditioning:
    """The states of a prompt's tokens and its pooled state, as the models take them that the text encoders are for.

    CLIP's chunks follow one another; pooled is the first of them. A token's weight moves its state away from, or
    towards, the state that an empty prompt has at that place. Raises ModelError.

    Args:
        text: for all text encoders, or for each of them. Then those of CLIP have as many chunks, some of them empty.
        folders: where the embeddings are that the text mentions; without, `embedding:name` is plain text.
    """
    refuse_absent(clip)
    towers = {each.tower: each for each in clip.encoders}
    texts = _texts(clip, text)
    clips = [each for tower, each in towers.items() if tower != "T5" and tower in texts]
    encoded = _encode_clips(pool, clips, texts, folders, balanced=not isinstance(text, str))
    match clip.joined:
        case "side by side":
            prompt = _side_by_side(list(encoded.values()))
        case "SD 3":
            t5 = _encode_t5(pool, towers["T5"], texts["T5"], SD3_LENGTH, folders) if "T5" in texts else None
            prompt = _as_sd3(pool, clip, encoded, t5)
        case "Flux":
            t5 = _encode_t5(pool, towers["T5"], texts["T5"], FLUX_LENGTH, folders)
            prompt = Prompt(t5, encoded["CLIP-L"].pooled)
    return Conditioning((prompt,))


def _texts(clip: Clip, text: str | Texts) -> Texts:
    """What each of the text encoders reads; one that is not told reads nothing, as an empty text or not at all."""
    if isinstance(text, str):
        return {each.tower: text for each in clip.encoders}
    if clip.joined == "SD 3":
        return {each.tower: text[each.tower] for each in clip.encoders if each.tower in text}
    return {each.tower: text.get(each.tower, text.get("CLIP-L", "")) for each in clip.encoders}


def _encode_clips(
    pool: "ModelPool", clips: Sequence[Clip], texts: Texts, folders: Folders | None, *, balanced: bool
) -> dict[Tower, Encoded]:
    words = [_Learned(pool, each, folders) for each in clips]
    filled = [
        chunks(pool.tokenizer(each), texts[each.tower], each.pad, own.learn if folders else None)
        for each, own in zip(clips, words, strict=True)
    ]
    longest = max(map(len, filled), default=0) if balanced else 0
    return {
        each.tower: _encoded(pool, each, parts, longest, own.vectors())
        for each, parts, own in zip(clips, filled, words, strict=True)
    }


def _side_by_side(encoded: Sequence[Encoded]) -> Prompt:
    """All that a token has, as many tokens as the shorter has, and the pooled state of the last."""
    import torch

    length = min(states.shape[1] for states, _ in encoded)
    return Prompt(torch.cat([states[:, :length] for states, _ in encoded], dim=-1), encoded[-1].pooled)


def _as_sd3(
    pool: "ModelPool", clip: Clip, clips: Mapping[Tower, Encoded], t5: "Float[Tensor, '1 tokens width'] | None"
) -> Prompt:
    """CLIP's states side by side, filled up to the width of T5's, which follow; zeros for a CLIP that is not there.

    Without any, there are zeros. Raises ModelError for a T5 that is narrower than what it follows.
    """
    import torch
    from torch.nn.functional import pad

    length = min((each.states.shape[1] for each in clips.values()), default=SD3_LENGTH)
    low, large, width = (_sd3_width(clip, tower) for tower in (*SD3_CLIPS, "T5"))
    if clips and width < low + large:
        reason = f"states of width {width} do not follow CLIP's, whose width is {low} and {large}"
        raise ModelError(clip.encoders[-1].weights.path, reason, "Stable Diffusion 3 takes T5-XXL, of width 4096.")
    zeros = torch.zeros(1, length, low + large, device=pool.device)
    pair = [
        clips.get(tower) or Encoded(zeros[..., :wide], zeros[:, 0, :wide])
        for tower, wide in zip(SD3_CLIPS, (low, large), strict=True)
    ]
    parts = [] if t5 is None else [t5]
    if clips or t5 is None:
        side = torch.cat([states[:, :length] for states, _ in pair], dim=-1)
        parts.insert(0, pad(side, (0, width - low - large)))
    return Prompt(torch.cat(parts, dim=1), torch.cat([pooled for _, pooled in pair], dim=-1))


def _sd3_width(clip: Clip, tower: Tower) -> int:
    """How wide a text encoder's states are, whether or not it is there, and reads anything."""
    encoder = next((each for each in clip.encoders if each.tower == tower), None)
    if encoder is None:
        return SD3_WIDTHS[tower]
    return canonical_shapes(encoder.weights, "only text encoder")[NORM if tower == "T5" else CLIP_NORM][0]


class _Learned:
    """The embeddings that a prompt mentions, as one of its encoders has them; each is read once."""

    def __init__(self, pool: "ModelPool", clip: Clip, folders: Folders | None) -> None:
        self._pool, self._clip, self._folders = pool, clip, folders
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
        vectors = read_vectors(found.path, self._pool.text_width(self._clip), second=self._clip.tower == "CLIP-G")
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
) -> Encoded:
    """What one of CLIP's encoders makes of at least so many chunks."""
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
    return Encoded(states.reshape(1, -1, states.shape[-1]), encoded[0][1][:1])


def _encode_t5(
    pool: "ModelPool", clip: Clip, text: str, least: int, folders: Folders | None
) -> "Float[Tensor, '1 tokens width']":
    """The states of all tokens of a text, which is filled up to at least so many. Embeddings are none of T5's."""
    import torch

    from nodes.t5_encoder import t5_states

    tokenizer = load_t5_tokenizer(clip.tokenizer)
    stretches = [(tokenizer.ids(_spoken(part.text, folders)), part.weight) for part in parse_weights(text)]
    ids = [token for own, _ in stretches for token in own] + [tokenizer.end]
    weights = [weight for own, weight in stretches for _ in own]
    length = max(least, len(ids))
    texts = [ids, [tokenizer.end]] if any(weight != 1.0 for weight in weights) else [ids]
    filled = [[*each, *[tokenizer.pad] * (length - len(each))] for each in texts]
    states = t5_states(pool, clip, torch.tensor(filled))
    if len(texts) == 1:
        return states
    weights += [1.0] * (length - len(weights))
    return weigh(states[:1], states[1], torch.tensor([weights], device=states.device))


def _spoken(text: str, folders: Folders | None) -> str:
    """A text without the embeddings that it mentions."""
    return text if folders is None else "".join(piece.text for piece in pieces(text) if piece.name is None)


def weigh(
    states: "Float[Tensor, 'chunks tokens width']",
    empty: "Float[Tensor, 'tokens width']",
    weights: "Float[Tensor, 'chunks tokens']",
) -> "Float[Tensor, 'chunks tokens width']":
    """States moved away from those of an empty prompt by their weights; those of weight 1 stay exactly as they are."""
    import torch

    scale = weights[..., None]
    return torch.where(scale == 1, states, (states - empty) * scale + empty)
