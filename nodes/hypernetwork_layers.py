"""A hypernetwork as layers, and in a network: before the projections to keys and values."""

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module

from nodes.hypernetworks import Hypernetwork, Layer, Plan, read_plan
from nodes.narrow_weights import like
from nodes.open_weights import OpenWeights


class Nudged(Module):
    """A projection of x + strength·f(x)."""

    def __init__(self, projection: Module, layers: Sequence[Module], strength: float) -> None:
        super().__init__()
        self.projection = projection
        self.layers = torch.nn.Sequential(*layers)
        self.strength = strength

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(x + self.strength * self.layers(x))


class _Linear(Module):
    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class _Norm(_Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias)


def apply_hypernetwork(view: Module, patch: Hypernetwork) -> None:
    """Put it before the keys and values of all attention of its widths. The modules are the view's own."""
    plan, files, computed = read_plan(patch.file.path), OpenWeights(), like(view)
    for module in list(view.modules()):
        for side, name in enumerate(("to_k", "to_v")):
            projection = getattr(module, name, None)
            layers = plan.pairs.get(_width(projection)) if isinstance(projection, Module) else None
            if layers is not None:
                made = _layers(plan, layers[side], patch, files, computed)
                setattr(module, name, Nudged(cast(Module, projection), made, patch.strength))


def _width(projection: Any) -> int:
    """Of what a projection is given; also where other hypernetworks stand before it."""
    while isinstance(projection, Nudged):
        projection = projection.projection
    return getattr(projection, "in_features", 0)


def _layers(
    plan: Plan, layers: Sequence[Layer], patch: Hypernetwork, files: OpenWeights, computed: Tensor
) -> list[Module]:
    made: list[Module] = []
    last = max(at for at, layer in enumerate(layers) if len(layer.shape) == 2)
    for at, layer in enumerate(layers):
        weight, bias = (files.tensor(patch.file.path, f"{layer.name}.{kind}") for kind in ("weight", "bias"))
        made.append((_Linear if len(layer.shape) == 2 else _Norm)(weight.to(computed), bias.to(computed)))
        if len(layer.shape) == 2 and plan.activation and (at != last or plan.activate_output):
            made.append(getattr(torch.nn, plan.activation)())
    return made
