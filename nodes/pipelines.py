"""Whole checkpoints in diffusers layout, whichever network denoises: references, by their configurations."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from nodes.folder_configurations import (
    FlowConfiguration,
    PipelineIndex,
    TextConfiguration,
    TransformerConfiguration,
    VaeConfiguration,
)
from nodes.identification import transformer_variant
from nodes.model_errors import ModelError
from nodes.model_folders import (
    CLIP_VOCABULARY,
    ONLY_SD,
    T5_VOCABULARY,
    TEXT_STEM,
    UNET_STEM,
    part_weights,
    read_checkpoint,
    read_configuration,
    read_index,
    tokenizer_files,
    vae_reference,
)
from nodes.text_references import absent, text_reference, together
from nodes.transformer_models import TransformerFamily, as_configured, transformer_model
from nodes.values import Clip, Model, Tower, Vae
from nodes.weight_places import NotThisNetwork

FAMILIES: Mapping[str, TransformerFamily] = {
    **dict.fromkeys((f"StableDiffusion3{kind}Pipeline" for kind in ("", "Img2Img", "Inpaint")), "SD 3"),
    **dict.fromkeys(
        (f"Flux{kind}Pipeline" for kind in ("", "Img2Img", "Inpaint", "Kontext", "Fill", "Control")), "Flux"
    ),
}
"""By diffusers' names for what runs them."""
TEXTS: Mapping[TransformerFamily, Mapping[str, Tower]] = {
    "SD 3": {"text_encoder": "CLIP-L", "text_encoder_2": "CLIP-G", "text_encoder_3": "T5"},
    "Flux": {"text_encoder": "CLIP-L", "text_encoder_2": "T5"},
}
LAYOUT = (
    "Such a checkpoint is a folder in diffusers layout: model_index.json beside transformer/, vae/, scheduler/ and "
    "text_encoder/, tokenizer/ and so on, with the weights as .safetensors."
)


def read_pipeline(folder: Path, name: str) -> tuple[Model, Clip, Vae]:
    """References to the parts of a checkpoint. Reads configurations and file identities, never weights.

    Raises ModelError, which says what is missing or unsuitable and what to do.
    """
    index = read_index(folder)
    family = FAMILIES.get(index.class_name)
    if family is None:
        return read_checkpoint(folder, name)
    config = read_configuration(folder / "transformer" / "config.json", TransformerConfiguration, LAYOUT)
    vae = read_configuration(folder / "vae" / "config.json", VaeConfiguration, LAYOUT)
    scheduler = read_configuration(folder / "scheduler" / "scheduler_config.json", FlowConfiguration, LAYOUT)
    try:
        variant = transformer_variant(family, config.in_channels)
    except NotThisNetwork as error:
        raise ModelError(folder / "transformer", str(error), ONLY_SD) from error
    model = transformer_model(part_weights(folder / "transformer", UNET_STEM, name), family, dict(config), variant)
    return (
        as_configured(model, scheduler, vae),
        _clip(folder, name, index, family, config.joint_attention_dim),
        vae_reference(folder / "vae", name, vae),
    )


def _clip(folder: Path, name: str, index: PipelineIndex, family: TransformerFamily, width: int) -> Clip:
    """The text encoders of a checkpoint, which may lack some, or all. Raises ModelError."""
    found = [_text(folder, name, part, index, family, width) for part, _ in index.encoders if part in TEXTS[family]]
    if not found:
        return absent(part_weights(folder / "transformer", UNET_STEM, name), family)
    return together(folder, found, family)


def _text(folder: Path, name: str, part: str, index: PipelineIndex, family: TransformerFamily, width: int) -> Clip:
    tower, kind = TEXTS[family][part], str(getattr(index, part)[1])
    is_t5 = tower == "T5"
    config = read_configuration(folder / part / "config.json", TextConfiguration, LAYOUT)
    wanted = ("t5", "t5_encoder_model") if is_t5 else ("clip_text_model",)
    if config.model_type not in wanted:
        raise ModelError(folder / part, f"the text encoder is a {config.model_type}, not a {wanted[0]}", ONLY_SD)
    if is_t5 and config.hidden_size != width:
        raise ModelError(
            folder,
            f"the parts do not belong together: transformer/ expects text states of width {width}, "
            f"{part}/ makes {config.hidden_size}",
            "Take all folders from one checkpoint.",
        )
    tokenizer = tokenizer_files(
        folder / part.replace("text_encoder", "tokenizer"), name, T5_VOCABULARY if is_t5 else CLIP_VOCABULARY
    )
    clip = text_reference(part_weights(folder / part, TEXT_STEM, name), tokenizer, tower, family)
    # A folder says so of CLIP-L, too, whose pooled state files have as it is.
    return replace(clip, projected=kind.endswith("WithProjection"))
