"""Flux Redux: what a picture looks like as further tokens of a prompt (Black Forest Labs 2024)."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from graph.folders import Folders
from graph.literals import Between
from graph.node import node
from graph.values import INJECTED, Value
from nodes.model_errors import ModelError
from nodes.model_sources import PartSource
from nodes.models import ModelPool
from nodes.picture_prompts import ClipVisionOutput
from nodes.single_files import file_reference, identified
from nodes.values import Conditioning, Weights
from nodes.weight_files import read_header

STYLE_MODELS = PartSource("style model", "style_models")
INPUT = "redux_up.weight"


@dataclass(frozen=True, slots=True)
class StyleModel(Value, kind="STYLE_MODEL"):
    """A reference to a Redux, which takes states of pictures of `width` numbers."""

    weights: Weights
    width: int


@node("StyleModelLoader", category="loaders", title="Load Style Model")
def load_style_model(style_model_name: Annotated[str, STYLE_MODELS], folders: Folders = INJECTED) -> StyleModel:
    """A Redux, by name."""
    return read_style_model(STYLE_MODELS.locate(folders, style_model_name), style_model_name)


@node("StyleModelApply", category="conditioning/style_model", title="Apply Style Model", lane="device")
def apply_style_model(
    conditioning: Conditioning,
    style_model: StyleModel,
    clip_vision_output: ClipVisionOutput,
    strength: Annotated[float, Between(0, 10, "What the picture's tokens are multiplied by.", step=0.001)] = 1.0,
    strength_type: Annotated[
        Literal["multiply", "attn_bias"], Field(description="Only multiply, but for a strength of 1.")
    ] = "multiply",
    models: ModelPool = INJECTED,
) -> Conditioning:
    """Append what a picture looks like to prompts for Flux."""
    import torch

    from nodes.style_tokens import style_tokens

    if strength_type == "attn_bias" and strength != 1.0:
        raise ValueError("strength_type attn_bias: attention is not biased here; choose multiply, or a strength of 1")
    tokens = style_tokens(models, style_model, clip_vision_output) * strength
    return Conditioning(
        tuple(
            replace(each, tokens=torch.cat([each.tokens, tokens.expand(len(each.tokens), -1, -1)], 1))
            for each in conditioning.prompts
        )
    )


def read_style_model(path: Path, name: str) -> StyleModel:
    """A reference to a Redux. Raises ModelError."""
    _, found = identified(path, "style model")
    if found.family != "Flux":
        raise ModelError(path, f"it is a {found}, not one for Flux", "Choose a Redux.")
    return StyleModel(file_reference(path, name, ""), read_header(path)[INPUT].shape[1])
