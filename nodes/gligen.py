"""GLIGEN: phrases in boxes, Li et al. (2023)."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from graph.folders import Folders
from graph.literals import Widget
from graph.node import node
from graph.values import INJECTED
from nodes.gligen_layout import gligen_plan, phrase_width
from nodes.grounded_prompts import Box, Gligen, Grounding
from nodes.lengths import LONGEST, PixelsByEight
from nodes.model_errors import ModelError
from nodes.model_sources import PartSource
from nodes.models import ModelPool
from nodes.prompt_areas import FACTOR
from nodes.single_files import file_reference, identified
from nodes.text import PromptText
from nodes.values import Clip, Conditioning
from nodes.weight_places import NotThisNetwork, shapes_below

GLIGENS = PartSource("GLIGEN", "gligen")

Length = Annotated[int, Field(ge=8, le=LONGEST, description="In pixels of the picture."), Widget(step=8)]


@node("GLIGENLoader", category="loaders")
def load_gligen(gligen_name: Annotated[str, GLIGENS], folders: Folders = INJECTED) -> Gligen:
    """Layers that let a model be told what is where, by name."""
    return read_gligen(GLIGENS.locate(folders, gligen_name), gligen_name)


@node("GLIGENTextBoxApply", category="conditioning/gligen", lane="device")
def add_box(
    conditioning_to: Conditioning,
    clip: Clip,
    gligen_textbox_model: Gligen,
    text: PromptText,
    width: Length = 64,
    height: Length = 64,
    x: PixelsByEight = 0,
    y: PixelsByEight = 0,
    models: ModelPool = INJECTED,
    folders: Folders = INJECTED,
) -> Conditioning:
    """Say that something is in a rectangle of the picture; up to 30 of them count."""
    from nodes.text_encoding import encode_prompt

    phrase = encode_prompt(models, clip, text, folders=folders).prompts[0].pooled
    found = 0 if phrase is None else phrase.shape[-1]
    if phrase is None or found != gligen_textbox_model.width:
        name, wanted = gligen_textbox_model.weights.name, gligen_textbox_model.width
        raise ValueError(
            f"the phrase was encoded into {found} numbers, where the GLIGEN {name!r} takes {wanted}; "
            "encode it with the CLIP of a model that the GLIGEN was made for"
        )
    box = Box(phrase, x // FACTOR, y // FACTOR, width // FACTOR, height // FACTOR)
    gligen = gligen_textbox_model.weights
    prompts = (
        replace(each, grounding=Grounding(gligen, (*(each.grounding.boxes if each.grounding else ()), box)))
        for each in conditioning_to.prompts
    )
    return Conditioning(tuple(prompts))


def read_gligen(path: Path, name: str) -> Gligen:
    """A reference to a GLIGEN's layers. Raises ModelError."""
    header, _ = identified(path, "GLIGEN")
    try:
        config = gligen_plan(shapes_below(header.entries, "")).config
    except NotThisNetwork as error:
        raise ModelError(path, f"its layers cannot be used: {error}") from error
    return Gligen(file_reference(path, name, ""), phrase_width(config))
