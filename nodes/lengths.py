"""Lengths and offsets in pixels, as several nodes take them."""

from typing import Annotated, Literal

from pydantic import Field

from graph.literals import Widget

LONGEST = 16384

Pixels = Annotated[int, Field(ge=0, le=LONGEST), Widget(step=1)]
PixelsByEight = Annotated[int, Field(ge=0, le=LONGEST), Widget(step=8)]
Side = Annotated[int, Field(ge=1, le=LONGEST), Widget(step=1)]
Crop = Annotated[
    Literal["disabled", "center"],
    Field(description="center: cut the longer axis to the new proportions first; disabled: stretch."),
]
