"""Flux Redux: two layers that make tokens of what SigLIP says of pictures."""

from nodes.weight_places import NetworkPlan, NotThisNetwork, Place, Shapes, shape_of


def redux_plan(shapes: Shapes) -> NetworkPlan:
    """The layers that a file's names and shapes describe. Raises NotThisNetwork."""
    inner, width = shape_of(shapes, "redux_up.weight", 2)[:2]
    tokens, found = shape_of(shapes, "redux_down.weight", 2)[:2]
    if found != inner:
        raise NotThisNetwork(f"its second layer takes {found} numbers, and the first gives {inner}")
    return NetworkPlan({"width": width, "inner": inner, "tokens": tokens}, lambda name: (Place(name),))
