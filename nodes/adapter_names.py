"""How files of adapters name what they change: kohya's, diffusers' and PEFT's names. Imports no torch."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nodes.identification import Family, family_of
from nodes.model_folders import TEXT_STEM, UNET_STEM, weight_files
from nodes.network_layout import architecture_of, by_diffusers_names, original_places
from nodes.text_layout import naming_of, open_clip_names, open_clip_places
from nodes.unet_layout import structure_of_diffusers, unet_config, unet_names
from nodes.values import Clip, Weights
from nodes.weight_files import read_header
from nodes.weight_patches import Part
from nodes.weight_places import NotThisNetwork, Shape, Shapes, shapes_below

ROLES: Mapping[str, str] = {
    ".lora_up.weight": "up",
    ".lora_down.weight": "down",
    ".lora_mid.weight": "mid",
    ".lora.up.weight": "up",
    ".lora.down.weight": "down",
    "_lora.up.weight": "up",
    "_lora.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_B.weight": "up",
    ".lora_A.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora_A.default.weight": "down",
    ".lora_magnitude_vector": "dora_scale",
    ".lora_magnitude_vector.weight": "dora_scale",
    ".lora_magnitude_vector.default.weight": "dora_scale",
    ".dora_scale": "dora_scale",
    ".alpha": "alpha",
    **{f".{name}": name for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")},
    **{f".lokr_{name}": f"lokr_{name}" for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")},
    **{f".{name}.weight": name for name in ("a1", "a2", "b1", "b2", "bm")},
    ".oft_blocks": "oft_blocks",
    ".rescale": "rescale",
    ".diff": "diff",
    ".w_norm": "diff",
    ".diff_b": "bias",
    ".b_norm": "bias",
}
"""What a tensor is, by how its name ends."""

_KINDS = (
    ("up", "down"),
    ("diff",),
    ("hada_w1", "hada_w2"),
    ("lokr_w1", "lokr_w2"),
    ("a1", "a2", "b1", "b2"),
    ("oft_blocks",),
)
"""What each kind of adapter needs, whole or as a product of `_a` and `_b`."""

_UNET_STARTS = ("", "unet.", "base_model.model.", "diffusion_model.", "model.diffusion_model.")
_TEXT_STARTS: Mapping[Part, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "only text encoder": (("lora_te_", "lora_te1_"), ("", "text_encoder.", "base_model.model.")),
    "first text encoder": (("lora_te_", "lora_te1_"), ("", "text_encoder.", "base_model.model.")),
    "second text encoder": (("lora_te2_",), ("text_encoder_2.",)),
}
"""How names of each start, those that are joined by underscores and those with dots."""


def text_part(clip: Clip, encoder: Clip) -> Part | None:
    """Which part of a model one of its text encoders is, as files name them; None: no file is for a T5."""
    if encoder.tower == "T5" or clip.absent:
        return None
    if not clip.further:
        return "only text encoder"
    return "second text encoder" if encoder.tower == "CLIP-G" else "first text encoder"


@dataclass(frozen=True, slots=True)
class Adapter:
    """What a file has for one weight: its tensors' names by their roles."""

    weight: str
    tensors: Mapping[str, str]


def read_adapters(names: Iterable[str], spelled: Mapping[str, str]) -> tuple[list[Adapter], set[str]]:
    """What a file of tensors with these names has for a network, and the names that do not fit it.

    Args:
        spelled: the network's modules by all that they may be called.
    """
    found: dict[str, dict[str, str]] = {}
    left: set[str] = set()
    for name in sorted(names):
        base, role = _taken_apart(name)
        module = spelled.get(base)
        if role is None or module is None:
            left.add(name)
        elif role == "bias":
            found.setdefault(f"{module}.bias", {})["diff"] = name
        else:
            found.setdefault(f"{module}.weight", {})[role] = name
    whole = {weight: tensors for weight, tensors in found.items() if _is_whole(tensors)}
    left.update(name for weight, tensors in found.items() if weight not in whole for name in tensors.values())
    return [Adapter(weight, tensors) for weight, tensors in whole.items()], left


def _taken_apart(name: str) -> tuple[str, str | None]:
    """The module that a name is about, and what the tensor is."""
    end = max((end for end in ROLES if name.endswith(end)), key=len, default=None)
    if end is None:
        return name, None
    base = name.removesuffix(end).replace(".processor.", ".")
    return f"{base}.0" if base.endswith(".to_out") else base, ROLES[end]


def _is_whole(tensors: Mapping[str, str]) -> bool:
    """Whether all is there that one kind of adapter needs."""

    def has(name: str) -> bool:
        return name in tensors or (f"{name}_a" in tensors and f"{name}_b" in tensors)

    return any(all(map(has, kind)) for kind in _KINDS)


def spellings(part: Part, shapes: Shapes) -> dict[str, str]:
    """A network's modules by all that a file may call them. `shapes` are by canonical names."""
    modules = sorted({name.rpartition(".")[0] for name in shapes})
    if part == "U-Net" and architecture_of(shapes) != "U-Net":
        return _transformer_spellings(shapes)
    if part == "U-Net":
        original = original_names(shapes)
        return {
            spelled: module
            for module in modules
            for name in (original.get(module, module), module)
            for spelled in (f"lora_unet_{_flat(name)}", f"lycoris_{_flat(name)}", *(f"{s}{name}" for s in _UNET_STARTS))
        }
    flat, dotted = _TEXT_STARTS[part]
    return {
        spelled: module
        for module in modules
        for name in (module, f"text_model.{module}")
        for spelled in (*(f"{start}{_flat(name)}" for start in flat), *(f"{start}{name}" for start in dotted))
    }


def _transformer_spellings(shapes: Shapes) -> dict[str, str]:
    """Modules by diffusers' names and by the original ones; several that are one there are called as they are there."""
    names = {module: module for module in {name.rpartition(".")[0] for name in shapes}}
    for name, place in original_places(shapes).items():
        module, original = name.rpartition(".")[0], place.name.rpartition(".")[0]
        names[original] = module if place.whole else original
    return {
        spelled: module
        for name, module in names.items()
        for spelled in (
            *(f"{start}{_flat(name)}" for start in ("lora_unet_", "lora_transformer_", "lycoris_")),
            *(f"{start}{name}" for start in (*_UNET_STARTS, "transformer.")),
        )
    }


def fused_shapes(shapes: Shapes) -> dict[str, Shape]:
    """The shapes of those weights in the original layout of which a network has shares, by their names there."""
    fused: dict[str, Shape] = {}
    for name, place in original_places(shapes).items():
        if not place.whole:
            known = fused.get(place.name, (0,))
            fused[place.name] = (known[0] + shapes[name][0], *shapes[name][1:])
    return fused


def _flat(name: str) -> str:
    return name.replace(".", "_")


def original_names(shapes: Shapes) -> dict[str, str]:
    """The modules of a U-Net by diffusers' names, and what they are called in the original layout."""
    modules = {name.rpartition(".")[0] for name in shapes}
    try:
        table = unet_names(structure_of_diffusers(shapes))
    except NotThisNetwork:
        return {}
    return {module: table.original(module) for module in modules}


def unet_family(shapes: Shapes) -> Family | None:
    """The family of a network whose shapes are given by diffusers' names, if it is a known one."""
    architecture = architecture_of(shapes)
    if architecture != "U-Net":
        return architecture
    try:
        return family_of(unet_config(structure_of_diffusers(shapes), shapes))
    except NotThisNetwork:
        return None


def canonical_shapes(weights: Weights, part: Part) -> dict[str, Shape]:
    """The shapes of a network's weights, by diffusers' names, or by transformers' without a leading `text_model.`."""
    if weights.path.is_dir():
        files = weight_files(weights.path, UNET_STEM if part == "U-Net" else TEXT_STEM)
        shapes = {name: entry.shape for file in files for name, entry in read_header(file).items()}
    else:
        shapes = shapes_below(read_header(weights.path), weights.part)
    if part == "U-Net":
        return by_diffusers_names(shapes)
    if naming_of(shapes) != "openclip":
        return {canonical(name): shape for name, shape in shapes.items()}
    places = {name: open_clip_places(name)[0] for name in open_clip_names(shapes)}
    return {name: place.shape(shapes[place.name]) for name, place in places.items() if place.name in shapes}


def canonical(name: str) -> str:
    """A weight's name whatever the version of transformers: from 5 on, there is no leading `text_model.`."""
    return name.removeprefix("text_model.")
