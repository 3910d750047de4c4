"""Choices that several commands offer."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nodes.precision import PrecisionChoice

PRECISIONS: "tuple[PrecisionChoice, ...]" = ("auto", "fp32", "bf16", "fp16")
