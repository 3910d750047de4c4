"""JSON of unknown shape, taken for an object or a list; where it is none, for an empty one."""

from collections.abc import Mapping
from typing import Any, cast


def an_object(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def a_list(value: object) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []
