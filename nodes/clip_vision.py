"""CLIP's picture encoder: load one, and encode pictures with it."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from graph.folders import Folders
from graph.node import node
from graph.values import INJECTED
from nodes.model_errors import ModelError
from nodes.model_folders import TEXT_STEM, part_weights
from nodes.model_sources import PartSource
from nodes.models import ModelPool
from nodes.picture_encoder_layout import find_picture_encoder, picture_encoder_part
from nodes.picture_prompts import ClipVision, ClipVisionOutput
from nodes.siglip_layout import MODEL_TYPE
from nodes.single_files import file_reference, identified
from nodes.values import Image
from nodes.weight_files import read_header
from nodes.weight_places import NotThisNetwork

PICTURE_ENCODERS = PartSource("CLIP vision model", "clip_vision")
KINDS = ("clip_vision_model", "clip", MODEL_TYPE)
LAYOUT = (
    "A picture encoder is a safetensors file, or a folder as transformers saves it: config.json and model.safetensors."
)

Crop = Annotated[
    Literal["center", "none"],
    Field(description="center: the middle in a square; none: all of it, squeezed into the square."),
]


@node("CLIPVisionLoader", category="loaders", title="Load CLIP Vision")
def load_clip_vision(clip_name: Annotated[str, PICTURE_ENCODERS], folders: Folders = INJECTED) -> ClipVision:
    """CLIP's picture encoder, by name."""
    return read_clip_vision(PICTURE_ENCODERS.locate(folders, clip_name), clip_name)


@node("CLIPVisionEncode", category="conditioning", title="CLIP Vision Encode", lane="device")
def encode_clip_vision(
    clip_vision: ClipVision, image: Image, crop: Crop = "center", models: ModelPool = INJECTED
) -> ClipVisionOutput:
    """What CLIP says of pictures, for nodes that take them as prompts."""
    from nodes.picture_encoding import encode_pictures

    return encode_pictures(models, clip_vision, image.rgb, crop == "center")


def read_clip_vision(path: Path, name: str) -> ClipVision:
    """A reference to the picture encoder of a file, which may hold more, or of a folder. Raises ModelError."""
    if path.is_dir():
        _check_folder(path)
        return ClipVision(part_weights(path, TEXT_STEM, name))
    header = read_header(path)
    if find_picture_encoder(header) is None:
        identified(path, "CLIP vision")
    try:
        prefix, _ = picture_encoder_part(header)
    except NotThisNetwork as error:
        advice = f"See `latentloom models inspect {path}`."
        raise ModelError(path, f"its picture encoder cannot be used: {error}", advice) from error
    return ClipVision(file_reference(path, name, prefix))


class _Config(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    model_type: str = "model of no stated type"


def _check_folder(folder: Path) -> None:
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(folder, "config.json is missing", LAYOUT)
    try:
        kind = _Config.model_validate_json(path.read_bytes()).model_type
    except (OSError, ValidationError) as error:
        raise ModelError(path, f"this is no model's configuration ({error})", LAYOUT) from error
    if kind not in KINDS:
        raise ModelError(path, f"it is a {kind}, not one of {', '.join(KINDS)}", "Choose a CLIP's picture encoder.")
