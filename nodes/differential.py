"""Noise masks that say when a pixel may change, instead of how much."""

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from graph.literals import Widget
from graph.node import node
from nodes.values import Model


@node("DifferentialDiffusion", category="_for_testing", stage="experimental")
def differential_diffusion(
    model: Model,
    strength: Annotated[
        float,
        Field(
            ge=0, le=1, description="Below 1: part of the mask as it is, and this much of it by time; 0 counts as 1."
        ),
        Widget(step=0.01),
    ] = 1.0,
) -> Model:
    """Take a noise mask's grey for the moment from which a pixel may change: white at once (Levin and Fried 2023)."""
    return replace(model, differential=strength)
