"""Token embeddings of a text encoder beside which vectors may stand that were learned for a prompt (textual inversion).

Their ids are negative: -1 is the first vector. So they are never taken for the end of a text.
"""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Embedding

_LEARNED: ContextVar[Tensor | None] = ContextVar("learned", default=None)


class TokenEmbedding(Embedding):
    """A table of vectors by their ids; those of negative ids are the learned ones of the moment."""

    def forward(self, input: Tensor) -> Tensor:
        learned = _LEARNED.get()
        if learned is None:
            return super().forward(input).float()  # the table may be kept in 16 bits
        known = super().forward(input.clamp(min=0)).float()
        own = learned.to(known)[(-1 - input).clamp(min=0)]
        return torch.where((input < 0)[..., None], own, known)


def with_room(table: Embedding) -> TokenEmbedding:
    """The same table, with room for learned vectors; the weights are shared."""
    made = TokenEmbedding(table.num_embeddings, table.embedding_dim, device="meta")
    made.weight = table.weight
    return made


@contextmanager
def learned(vectors: Float[Tensor, "words width"] | None) -> Generator[None]:
    """While this lasts, in this thread, negative ids stand for these vectors."""
    token = _LEARNED.set(vectors)
    try:
        yield
    finally:
        _LEARNED.reset(token)
