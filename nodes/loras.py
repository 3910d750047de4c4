"""LoRAs: low-rank changes to a network and its text encoders, as references that are applied when a network is read."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field

from graph.folders import Folders
from graph.identity import content_identity
from graph.literals import Widget
from graph.node import node
from graph.values import INJECTED
from nodes.adapter_names import canonical_shapes, fused_shapes, read_adapters, spellings, text_part, unet_family
from nodes.adapter_shapes import extent
from nodes.identification import Identified, identify
from nodes.model_errors import ModelError
from nodes.model_sources import PartSource
from nodes.safetensors_header import TensorEntry
from nodes.values import Clip, Model, Weights
from nodes.weight_files import read_header
from nodes.weight_patches import LoraPatch, Part, patched

log = logging.getLogger("latentloom.models")

NAMED = 3
"""How many tensors a report names."""
TEXT_NAMES = ("lora_te", "text_encoder")
"""How names of what changes a text encoder begin."""
OF_ALL_ROWS = {"dora_scale", "oft_blocks", "a1"}
"""What is made of a weight by a tensor of these roles is not made of each of its rows alone."""

LORAS = PartSource("LoRA", "loras")

LoraName = Annotated[str, LORAS]
Strength = Annotated[
    float,
    Field(ge=-100, le=100, description="How much it counts: 0 is not at all, 1 as it was trained."),
    Widget(step=0.01),
]


class Changed(NamedTuple):
    """A model and its text encoder, with a LoRA."""

    MODEL: Model
    CLIP: Clip


@node("LoraLoader", category="loaders", title="Load LoRA")
def load_lora(
    model: Model,
    clip: Clip,
    lora_name: LoraName,
    strength_model: Strength = 1.0,
    strength_clip: Strength = 1.0,
    folders: Folders = INJECTED,
) -> Changed:
    """Change a model and its text encoder by a LoRA, LoCon, LoHa, LoKr, GLoRA, OFT, BOFT or DoRA."""
    networks = [_of_model(model, strength_model), *_of_clip(clip, strength_clip)]
    found = _with_lora(LORAS.locate(folders, lora_name), lora_name, networks)
    return Changed(replace(model, weights=found["U-Net"]), _with_encoders(clip, found))


@node("LoraLoaderModelOnly", category="loaders", title="Load LoRA (Model Only)")
def load_lora_for_model(
    model: Model, lora_name: LoraName, strength_model: Strength = 1.0, folders: Folders = INJECTED
) -> Model:
    """Change a model, and not its text encoder, by a LoRA, LoCon, LoHa, LoKr, GLoRA, OFT, BOFT or DoRA."""
    found = _with_lora(LORAS.locate(folders, lora_name), lora_name, [_of_model(model, strength_model)])
    return replace(model, weights=found["U-Net"])


class Target(NamedTuple):
    """A network that a LoRA may change, and how strongly."""

    part: Part
    weights: Weights
    strength: float


def _of_model(model: Model, strength: float) -> Target:
    return Target("U-Net", model.weights, strength)


def _of_clip(clip: Clip, strength: float) -> list[Target]:
    return [
        Target(part, encoder.weights, strength)
        for encoder in clip.encoders
        if (part := text_part(clip, encoder)) is not None
    ]


def _with_encoders(clip: Clip, found: Mapping[Part, Weights]) -> Clip:
    def changed(encoder: Clip) -> Clip:
        part = text_part(clip, encoder)
        return encoder if part is None else replace(encoder, weights=found[part])

    return replace(changed(clip), further=tuple(map(changed, clip.further)))


def _with_lora(path: Path, name: str, targets: Sequence[Target]) -> dict[Part, Weights]:
    """The weights of each network with the LoRA. Raises ModelError when it is for other networks."""
    found: dict[Part, Weights] = {target.part: target.weights for target in targets}
    if not any(target.strength for target in targets):
        return found
    entries = read_header(path)
    file = Weights(path, content_identity(path), name)
    fitting, left = _fit(path, entries, targets)
    for target in targets:
        if target.strength and target.part in fitting:
            found[target.part] = patched(target.weights, LoraPatch(file, target.strength, target.part))
    _report(path, entries, left, targets)
    return found


def _fit(path: Path, entries: Mapping[str, TensorEntry], targets: Sequence[Target]) -> tuple[set[Part], set[str]]:
    """The networks for which the file has something, and the names of what fits none of them. Raises ModelError."""
    left, fitting = set(entries), set[Part]()
    for target in targets:
        shapes = canonical_shapes(target.weights, target.part)
        fused = fused_shapes(shapes) if target.part == "U-Net" else {}
        adapters, others = read_adapters(entries, spellings(target.part, shapes))
        for adapter in adapters:
            wanted = (shapes | fused).get(adapter.weight)
            if adapter.weight in fused and not OF_ALL_ROWS.isdisjoint(adapter.tensors):
                reason = f"its change to {adapter.weight} cannot be taken apart into those to queries, keys and values"
                raise ModelError(path, reason, "Choose a LoRA without DoRA, OFT or GLoRA, or one by diffusers' names.")
            if wanted is None:
                others.update(adapter.tensors.values())
                continue
            rows, numbers = extent({role: entries[tensor].shape for role, tensor in adapter.tensors.items()})
            size = prod(wanted[1:])
            if rows != wanted[0] or numbers not in (None, size):
                if not target.strength:  # which is not asked of it
                    others.update(adapter.tensors.values())
                    continue
                found, needed = f"{rows} x {'any' if numbers is None else numbers}", f"{wanted[0]} x {size}"
                reason = f"for {adapter.weight} it has a change to {found} numbers, not {needed}"
                raise _foreign(path, entries, target, reason)
            fitting.add(target.part)
        left &= others
    if not fitting:
        raise _foreign(path, entries, targets[0], f"it names nothing that is there, but {_some(entries)}")
    return fitting, left


def _foreign(path: Path, entries: Mapping[str, TensorEntry], target: Target, reason: str) -> ModelError:
    """A LoRA for other networks: which, and which these are."""
    found = identify(entries)
    if isinstance(found, Identified) and found.kind != "LoRA":
        return ModelError(path, f"it is no LoRA, but a {found}", "Move it to the folder of its kind.")
    kind = f"an {found.family} LoRA" if isinstance(found, Identified) and found.family else "a LoRA for other networks"
    family = unet_family(canonical_shapes(target.weights, "U-Net")) if target.part == "U-Net" else None
    kind_of = "transformer" if family in ("SD 3", "Flux") else target.part
    network = f"the {kind_of} of {target.weights.name!r}{f' ({family})' if family else ''}"
    return ModelError(path, f"{kind}, which does not fit {network}: {reason}", "Choose one made for this model.")


def _report(path: Path, entries: Mapping[str, TensorEntry], left: set[str], targets: Sequence[Target]) -> None:
    """Say in the log what of the file has no place, but not what is for a text encoder that is not asked."""
    asked = {target.part for target in targets if target.strength}
    if not asked - {"U-Net"}:
        left = {name for name in left if not name.startswith(TEXT_NAMES)}
    if "U-Net" not in asked:
        left = {name for name in left if name.startswith(TEXT_NAMES)}
    if left:
        log.warning("%s: %d of %d tensors fit nothing: %s", path.name, len(left), len(entries), _some(left))


def _some(names: Iterable[str]) -> str:
    named = sorted(names)
    more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
    return f"{', '.join(named[:NAMED]) or 'nothing'}{more}"
