"""Numbers and texts as nodes of their own, so that several nodes can take the same one."""

import sys
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from graph.literals import Widget
from graph.node import node
from graph.values import Ui

LARGEST = sys.maxsize
Multiline = Annotated[str, Widget(multiline=True)]


@node("PrimitiveInt", category="utils/primitive", title="Int", cutoff=True)
def primitive_int(
    value: Annotated[int, Field(ge=-LARGEST, le=LARGEST), Widget(control_after_generate=True)] = 0,
) -> int:
    """A whole number."""
    return value


@node("PrimitiveFloat", category="utils/primitive", title="Float", cutoff=True)
def primitive_float(value: Annotated[float, Field(ge=-LARGEST, le=LARGEST)] = 0.0) -> float:
    """A number."""
    return value


@node("PrimitiveString", category="utils/primitive", title="String", cutoff=True)
def primitive_string(value: str = "") -> str:
    """A line of text."""
    return value


@node("PrimitiveStringMultiline", category="utils/primitive", title="String (Multiline)", cutoff=True)
def primitive_text(value: Multiline = "") -> str:
    """A text of several lines."""
    return value


@node("PrimitiveBoolean", category="utils/primitive", title="Boolean", cutoff=True)
def primitive_boolean(value: bool = False) -> bool:
    """True or false."""
    return value


@node("StringConcatenate", category="utils/string", title="Concatenate", cutoff=True)
def concatenate(
    string_a: Multiline = "",
    string_b: Multiline = "",
    delimiter: Annotated[str, Field(description="What stands between the two.")] = "",
) -> str:
    """Two texts as one."""
    return f"{string_a}{delimiter}{string_b}"


@dataclass(frozen=True, slots=True)
class ShownText(Ui):
    """A text for people to read."""

    text: str

    def to_json(self) -> dict[str, list[Any]]:
        return {"text": [self.text]}


@node("PreviewAny", category="utils", title="Preview Any")
def preview_any(source: Any) -> ShownText:
    """Show whatever comes, as text."""
    return ShownText(source if isinstance(source, str) else repr(source))
