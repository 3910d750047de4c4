"""Change weights as patches say: one after the other, in float32."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nodes.adapter_names import Adapter, canonical, fused_shapes, read_adapters, spellings
from nodes.maths.adapters import adapted
from nodes.model_errors import ModelError
from nodes.network_layout import original_places
from nodes.open_weights import OpenWeights
from nodes.placed_weights import taken
from nodes.safetensors_header import AGAIN
from nodes.values import Weights
from nodes.weight_files import read_header
from nodes.weight_patches import LoraPatch, MergePatch, Patch
from nodes.weight_places import Place, Shapes


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of weights, by their names in the network."""

    of: Callable[[str, Tensor], Tensor]
    """The given tensor itself stays as it is."""
    touches: Callable[[str], bool]
    """Whether it may become another one at all."""


Other = Callable[[Weights, str], Tensor | None]
"""A weight of another network of the same kind, with its own patches; None where it has none of this shape."""


def changes(weights: Weights, shapes: Shapes, other: Other) -> Change:
    """What all patches of a reference make of its weights.

    Args:
        shapes: of the network's weights, by their names in it.
    """
    steps = [
        _change(patch, {canonical(name): shape for name, shape in shapes.items()}, other) for patch in weights.patches
    ]

    def change(name: str, weight: Tensor) -> Tensor:
        changed = weight
        for step in steps:
            changed = step.of(name, changed)
        return changed

    return Change(change, lambda name: any(step.touches(name) for step in steps))


def _change(patch: Patch, shapes: Shapes, other: Other) -> Change:
    match patch:
        case LoraPatch():
            return _lora(patch, shapes)
        case MergePatch():
            return _merge(patch, shapes, other)


def _lora(patch: LoraPatch, shapes: Shapes) -> Change:
    path = patch.file.path
    found, _ = read_adapters(read_header(path), spellings(patch.part, shapes))
    adapters = {each.weight: each for each in found}
    fused, places = (fused_shapes(shapes), original_places(shapes)) if patch.part == "U-Net" else ({}, {})
    files = OpenWeights()

    def of_whole(name: str) -> tuple[Adapter, Place] | None:
        """What the file has for the weight of which this one is a share, and which share it is."""
        place = places.get(canonical(name))
        adapter = adapters.get(place.name) if place is not None and place.name in fused else None
        return None if place is None or adapter is None else (adapter, place)

    def touches(name: str) -> bool:
        return canonical(name) in adapters or of_whole(name) is not None

    def change(name: str, weight: Tensor) -> Tensor:
        changed = weight
        if whole := of_whole(name):
            adapter, place = whole
            changed = changed.float() + taken(with_adapter(adapter, torch.zeros(fused[place.name])), place)
        adapter = adapters.get(canonical(name))
        return changed if adapter is None else with_adapter(adapter, changed.float())

    def with_adapter(adapter: Adapter, weight: Tensor) -> Tensor:
        parts = {role: files.tensor(path, tensor).to(torch.float32) for role, tensor in adapter.tensors.items()}
        try:
            return adapted(weight, parts, patch.strength)
        except (RuntimeError, ValueError) as error:
            said = {role: list(part.shape) for role, part in parts.items()}
            reason = f"what it has for {adapter.weight}, {list(weight.shape)}, does not fit together: {said}"
            raise ModelError(path, reason, AGAIN) from error

    return Change(change, touches)


def _merge(patch: MergePatch, shapes: Shapes, other: Other) -> Change:
    original = original_places(shapes)

    def change(name: str, weight: Tensor) -> Tensor:
        theirs = other(patch.other, name)
        if theirs is None:
            return weight
        bare = canonical(name)
        own, others = share(patch, original[bare].name)
        return own * weight.float() + others * theirs.float()

    return Change(change, lambda name: True)


def share(patch: MergePatch, name: str) -> tuple[float, float]:
    """How much a weight counts itself, and how much the other: by the longest start of its name."""
    fitting = (each for each in patch.shares if name.startswith(each[0]))
    _, own, others = max(fitting, key=lambda each: len(each[0]), default=patch.shares[0])
    return own, others
