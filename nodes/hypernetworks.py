"""Hypernetworks: small networks before the keys and the values of attention, as references. Imports no torch.

A file has a pair of them, for keys and for values, by the width of what attention is asked about; the layout is that of
AUTOMATIC1111's web UI. Each gives x + strength·f(x), f being linear layers with activations and norms between them.
"""

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from graph.folders import Folders
from graph.identity import content_identity
from graph.literals import Widget
from graph.node import node
from graph.values import INJECTED
from nodes.adapter_names import canonical_shapes
from nodes.architectures import for_unets
from nodes.model_errors import ModelError
from nodes.model_sources import PartSource
from nodes.network_patches import NetworkPatch
from nodes.unet_patches import patched_by
from nodes.values import Model, Weights
from nodes.weight_files import read_whole_header

HYPERNETWORKS = PartSource("hypernetwork", "hypernetworks")
ACTIVATIONS: Mapping[str, str] = {
    **{name.lower(): name for name in ("ReLU", "ReLU6", "LeakyReLU", "ELU", "SELU", "CELU", "GELU", "SiLU", "Mish")},
    **{name.lower(): name for name in ("Tanh", "Sigmoid", "Softsign", "Softplus", "Hardswish", "Hardtanh")},
    "swish": "Hardswish",
}
"""torch's names of activations by those in files."""
NO_ACTIVATION = "linear"
_NAME = re.compile(r"(\d+)\.([01])\.linear\.?(\d+)\.(weight|bias)")


@dataclass(frozen=True)
class Hypernetwork(NetworkPatch):
    """A hypernetwork of some strength before the keys and values of all attention of its widths."""

    made_by = "HypernetworkLoader"

    file: Weights
    strength: float


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: the names of its tensors begin with `name`; of two dimensions it is linear, of one a norm."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a file holds: for each width the layers for keys and for values, and what comes between them."""

    pairs: Mapping[int, tuple[tuple[Layer, ...], tuple[Layer, ...]]]
    activation: str | None
    activate_output: bool


@node("HypernetworkLoader", category="loaders")
def load_hypernetwork(
    model: Model,
    hypernetwork_name: Annotated[str, HYPERNETWORKS],
    strength: Annotated[
        float, Field(ge=-10, le=10, description="How much it counts; 0 is not at all."), Widget(step=0.01)
    ] = 1.0,
    folders: Folders = INJECTED,
) -> Model:
    """Change what a model's attention makes of prompts and pictures by a hypernetwork."""
    for_unets(model, Hypernetwork.made_by)
    path = HYPERNETWORKS.locate(folders, hypernetwork_name)
    plan = read_plan(path)
    shapes = canonical_shapes(model.weights, "U-Net")
    widths = {shape[1] for name, shape in shapes.items() if name.endswith(".to_k.weight")}
    if widths.isdisjoint(plan.pairs):
        found, needed = (", ".join(map(str, sorted(each))) for each in (plan.pairs, widths))
        reason = f"it is for attention of the widths {found}, and {model.weights.name!r} has {needed}"
        raise ModelError(path, reason, "Choose a hypernetwork that was made for this model.")
    if not strength:
        return model
    return patched_by(model, Hypernetwork(Weights(path, content_identity(path), hypernetwork_name), strength))


def read_plan(path: Path) -> Plan:
    """What a hypernetwork's file holds, from names and shapes alone. Raises ModelError."""
    header = read_whole_header(path)
    layers: dict[tuple[int, int], dict[int, Layer]] = defaultdict(dict)
    for name, entry in header.entries.items():
        found = _NAME.fullmatch(name)
        if found is None:
            raise ModelError(path, f"it is no hypernetwork: it holds {name[:80]!r}", "Choose another file.")
        if found[4] == "weight":
            start = name.removesuffix(".weight")
            layers[int(found[1]), int(found[2])][int(found[3])] = Layer(start, entry.shape)
    pairs = {
        width: tuple(tuple(layer for _, layer in sorted(layers[width, side].items())) for side in (0, 1))
        for width in sorted({width for width, _ in layers})
    }
    if not pairs:
        raise ModelError(path, "it is no hypernetwork: it holds no tensors", "Choose another file.")
    for width, (keys, values) in pairs.items():
        for chain in (keys, values):
            _check_chain(path, width, chain)
    said = header.metadata.get("activation_func", NO_ACTIVATION).lower()
    if said not in ACTIVATIONS and said != NO_ACTIVATION:
        known = ", ".join(sorted(ACTIVATIONS))
        raise ModelError(path, f"its activation is {said[:40]!r}", f"Known are {NO_ACTIVATION}, {known}.")
    # Files that do not say so are older than the choice, and have it at the end too.
    last = json.loads(header.metadata.get("activate_output", "true")) is not False
    return Plan({w: (keys, values) for w, (keys, values) in pairs.items()}, ACTIVATIONS.get(said), last)


def _check_chain(path: Path, width: int, chain: tuple[Layer, ...]) -> None:
    """From the width back to the width, each layer taking what the one before gives. Raises ModelError."""
    now = width
    for layer in chain:
        match layer.shape:
            case (out, into) if into == now:
                now = out
            case (size,) if size == now:
                pass
            case _:
                raise ModelError(path, f"{layer.name} is {list(layer.shape)}, but it is given {now} numbers")
    if now != width or not chain:
        raise ModelError(path, f"its layers for the width {width} do not lead back to it, but to {now} numbers")
