"""The shape of JSON that may be anything."""

from collections.abc import Mapping
from typing import Any, TypeGuard, cast


def an_object(value: object) -> Mapping[str, Any]:
    """The object; an empty one where it is none."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def a_list(value: object) -> list[Any]:
    """The list; an empty one where it is none."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def is_editor_document(document: object) -> TypeGuard[dict[str, Any]]:
    """Whether this JSON has the editor's shape: an object with a list of nodes."""
    return isinstance(an_object(document).get("nodes"), list)
