"""Changes to a network's weights, as references: a LoRA of some strength, a mixture with another network.

They are part of the reference to the weights and of its identity, so that networks with and without them are never
taken for one another. Imports no torch.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

from graph.identity import digest, encode
from nodes.values import Weights

Part = Literal["U-Net", "only text encoder", "first text encoder", "second text encoder"]
"""Which of the networks that a LoRA may be for: text encoders are named by where they stand in a model."""


@dataclass(frozen=True, slots=True)
class LoraPatch:
    """What a LoRA file says of one network, with a strength. Whatever its kind: LoRA, LoCon, LoHa, LoKr or DoRA."""

    file: Weights
    strength: float
    part: Part


@dataclass(frozen=True, slots=True)
class MergePatch:
    """A weight becomes `own` times itself and `others` times that of another network, which may be patched itself.

    `shares` are (start of names, own, others), by names in the original layout; the longest start counts, and the
    first of them where none fits.
    """

    other: Weights
    shares: tuple[tuple[str, float, float], ...]


Patch = LoraPatch | MergePatch


def patched(weights: Weights, patch: Patch) -> Weights:
    """The reference with one more patch, which is applied after those that it has."""
    return replace(
        weights,
        identity=digest(b"patched", encode([weights.identity, _told(patch)])).hex(),
        patches=(*weights.patches, patch),
        unpatched=weights.unpatched or weights.identity,
    )


def _told(patch: Patch) -> list[Any]:
    """What tells it from all others: identities, never where the files are."""
    match patch:
        case LoraPatch(file, strength, part):
            return ["lora", file.identity, strength, part]
        case MergePatch(other, shares):
            return ["merge", other.identity, shares]
