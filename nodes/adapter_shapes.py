"""The shape of the weight that an adapter is for, from the shapes of its tensors. Imports no torch."""

from collections.abc import Mapping
from math import prod

from nodes.weight_places import Shape


def extent(shapes: Mapping[str, Shape]) -> tuple[int, int | None]:
    """Rows of the weight that an adapter with tensors of these shapes is for, and how many numbers a row has.

    None for one that turns rows of any length.
    """
    if not all(shapes[role] for role in shapes if role != "alpha"):
        return 0, 0
    if "diff" in shapes:
        return shapes["diff"][0], prod(shapes["diff"][1:])
    for up, down, mid in (("up", "down", "mid"), ("b1", "b2", "bm")):
        if up in shapes:
            return shapes[up][0], prod(shapes[down][1:]) * prod(shapes.get(mid, ())[2:])
    if "oft_blocks" in shapes:
        return prod(shapes["oft_blocks"][-3:-1]), None
    if "hada_w1_a" in shapes:
        return _extent_of(shapes, "hada_w1", "hada_t1")
    first, second = _extent_of(shapes, "lokr_w1", None), _extent_of(shapes, "lokr_w2", "lokr_t2")
    return first[0] * second[0], first[1] * second[1]


def _extent_of(shapes: Mapping[str, Shape], name: str, core: str | None) -> tuple[int, int]:
    if name in shapes:
        return shapes[name][0], prod(shapes[name][1:])
    a, b = shapes[f"{name}_a"], shapes[f"{name}_b"]
    if core is not None and core in shapes:
        return a[1], b[1] * prod(shapes[core][2:])
    return a[0], b[1]
