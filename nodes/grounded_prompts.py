"""The values of prompts that say what is where: phrases in boxes, for GLIGEN. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from graph.values import Value
from nodes.values import Weights

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Gligen(Value, kind="GLIGEN"):
    """A reference to GLIGEN's layers, which take phrases of `width` numbers."""

    weights: Weights
    width: int


@dataclass(frozen=True, slots=True)
class Box:
    """A phrase, as the pooled state of its text, and its rectangle in pixels of the latent."""

    phrase: Float[Tensor, "1 width"]
    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Grounding:
    """What is where in a picture, for a network with the layers of a GLIGEN."""

    gligen: Weights
    boxes: tuple[Box, ...]
