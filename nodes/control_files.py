"""ControlNets and T2I-Adapters on disk: references to them, from a header or a configuration alone."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nodes.adapter_names import canonical_shapes, unet_family
from nodes.control_layout import DIFFERENCE_MARK, UNION_MARK
from nodes.identification import Identified
from nodes.model_errors import ModelError
from nodes.model_folders import UNET_STEM, part_weights
from nodes.model_sources import PartSource
from nodes.single_files import file_reference, identified
from nodes.t2i_adapter_layout import adapter_plan
from nodes.values import ControlDesign, ControlNet, Model, Weights
from nodes.weight_patches import MergePatch, patched
from nodes.weight_places import shapes_below

CONTROL_NETS = PartSource("ControlNet", "controlnet", "t2i_adapter")
DESIGNS: Mapping[str, ControlDesign] = {
    "ControlNetModel": "ControlNet",
    "ControlNetUnionModel": "ControlNet union",
    "T2IAdapter": "T2I-Adapter",
}
"""By what diffusers calls them."""
LAYOUT = (
    "A ControlNet or T2I-Adapter is a safetensors file, or a folder as diffusers saves it: config.json and "
    "diffusion_pytorch_model.safetensors."
)
POOLED = "_shuffle"
"""How the names of ControlNets end that take no notice of where in their picture something is."""


def read_control_net(path: Path, name: str, model: Model | None = None) -> ControlNet:
    """A reference to a ControlNet or T2I-Adapter. Raises ModelError.

    Args:
        model: whose weights a file is added to that holds a difference alone.
    """
    if path.is_dir():
        return _in_folder(path, name)
    header, found = identified(path, "ControlNet", "T2I-Adapter")
    assert found.control is not None  # all of them have it
    control = ControlNet(file_reference(path, name, found.control))
    if found.layout == "ControlLoRA":
        return ControlNet(control.weights, "ControlLoRA")
    shapes = shapes_below(header.entries, found.control)
    if found.kind == "T2I-Adapter":
        multiple: int = adapter_plan(shapes).config["downscale_factor"]
        return ControlNet(control.weights, "T2I-Adapter", multiple)
    weights = _added(path, control, found, model) if DIFFERENCE_MARK in header.entries else control.weights
    design: ControlDesign = "ControlNet union" if UNION_MARK in shapes else "ControlNet"
    return ControlNet(weights, design, pooled=path.stem.removesuffix("_fp16").endswith(POOLED))


def _added(path: Path, control: ControlNet, found: Identified, model: Model | None) -> Weights:
    """The weights of a difference, added to those of a model."""
    if model is None:
        advice = "Load it with DiffControlNetLoader, and connect the model it is for."
        raise ModelError(path, "it holds a difference to a model's weights, which alone is no ControlNet", advice)
    family = unet_family(canonical_shapes(model.weights, "U-Net"))
    if family != found.family:
        reason = f"it is a difference to an {found.family} model, but {model.weights.name!r} is {family or 'another'}"
        raise ModelError(path, reason, f"Connect an {found.family} model.")
    return patched(control.weights, MergePatch(model.weights, (("", 1.0, 1.0),)))


class _Config(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    class_name: str = Field(alias="_class_name")
    downscale_factor: int = Field(default=8, ge=1)


def _in_folder(folder: Path, name: str) -> ControlNet:
    config = _config(folder)
    design = DESIGNS.get(config.class_name)
    if design is None:
        reason = f"it is a {config.class_name}, not one of {', '.join(DESIGNS)}"
        raise ModelError(folder / "config.json", reason, LAYOUT)
    weights = part_weights(folder, UNET_STEM, name)
    return ControlNet(weights, design, config.downscale_factor if design == "T2I-Adapter" else 8)


def folder_design(folder: Path) -> ControlDesign | None:
    """What of this kind a folder holds by its configuration, if anything."""
    try:
        return DESIGNS.get(_config(folder).class_name)
    except ModelError:
        return None


def _config(folder: Path) -> _Config:
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(folder, "config.json is missing", LAYOUT)
    try:
        return _Config.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ModelError(path, f"this is no model's configuration ({error})", LAYOUT) from error
