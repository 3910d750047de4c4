"""Load models by name: what a loader gives is a reference; the weights are read when a node needs them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from graph.folders import Folders
from graph.node import node
from graph.values import INJECTED
from nodes.identification import Family
from nodes.model_folders import read_vae
from nodes.model_sources import CheckpointSource, PartSource, PipelineSource, VaeSource
from nodes.pipelines import read_pipeline
from nodes.precision import Eighth
from nodes.single_files import (
    TrainedPrediction,
    read_single_checkpoint,
    read_single_clip,
    read_single_unet,
    read_single_vae,
)
from nodes.values import Clip, Model, Vae

CHECKPOINTS = CheckpointSource()
PIPELINES = PipelineSource()
VAES = VaeSource()
UNETS = PartSource("diffusion model", "diffusion_models", "unet")
TEXT_ENCODERS = PartSource("text encoder", "text_encoders", "clip")

CheckpointName = Annotated[str, CHECKPOINTS]
VaeName = Annotated[str, VAES]
UnetName = Annotated[str, UNETS]
TextEncoderName = Annotated[str, TEXT_ENCODERS]
Configuration = Literal[
    "v1-inference.yaml",
    "v1-inference_clip_skip_2.yaml",
    "v1-inpainting-inference.yaml",
    "v2-inference-v.yaml",
    "v2-inference.yaml",
    "v2-inpainting-inference.yaml",
]

WeightType = Literal["default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"]
ROUNDED: Mapping[WeightType, Eighth | None] = {
    "default": None,
    "fp8_e4m3fn": "fp8_e4m3fn",
    "fp8_e4m3fn_fast": "fp8_e4m3fn",  # the same numbers; on some GPUs they are multiplied in 8 bits
    "fp8_e5m2": "fp8_e5m2",
}

ClipType = Literal[
    "stable_diffusion", "stable_cascade", "sd3", "stable_audio", "mochi", "ltxv", "pixart", "cosmos", "lumina2", "wan",
    "hidream", "chroma", "ace", "omnigen2", "qwen_image", "hunyuan_image",
]  # fmt: skip
DualClipType = Literal["sdxl", "sd3", "flux", "hunyuan_video", "hidream", "hunyuan_image"]
CLIP_TYPES = "What it is for; of CLIPs alone, the files themselves tell."
FAMILIES: Mapping[str, Family | None] = {"stable_diffusion": None, "sdxl": None, "sd3": "SD 3", "flux": "Flux"}
"""The types that are supported; None: whatever the files are."""


class Checkpoint(NamedTuple):
    """The three parts of a latent diffusion model."""

    MODEL: Model
    CLIP: Clip
    VAE: Vae


@node("CheckpointLoaderSimple", category="loaders", title="Load Checkpoint")
def load_checkpoint(ckpt_name: CheckpointName, folders: Folders = INJECTED) -> Checkpoint:
    """A diffusion model with its text encoder and autoencoder, by name."""
    path = CHECKPOINTS.locate(folders, ckpt_name)
    if path.is_file():
        return Checkpoint(*read_single_checkpoint(path, ckpt_name, folders))
    return Checkpoint(*read_pipeline(path, ckpt_name))


@node(
    "CheckpointLoader",
    category="advanced/loaders",
    title="Load Checkpoint With Config (DEPRECATED)",
    stage="deprecated",
)
def load_checkpoint_as(
    config_name: Annotated[Configuration, Field(description="The training configuration that the file was made with.")],
    ckpt_name: CheckpointName,
    folders: Folders = INJECTED,
) -> Checkpoint:
    """A diffusion model of which it is known what it predicts; all else is told by the file itself."""
    path = CHECKPOINTS.locate(folders, ckpt_name)
    prediction: TrainedPrediction = "v_prediction" if config_name == "v2-inference-v.yaml" else "epsilon"
    if path.is_file():
        model, clip, vae = read_single_checkpoint(path, ckpt_name, folders, prediction)
    else:
        model, clip, vae = read_pipeline(path, ckpt_name)
        model = replace(model, prediction=prediction)
    layer = -2 if "clip_skip_2" in config_name else clip.layer
    return Checkpoint(model, replace(clip, layer=layer), vae)


@node("DiffusersLoader", category="advanced/loaders/deprecated")
def load_pipeline(model_path: Annotated[str, PIPELINES], folders: Folders = INJECTED) -> Checkpoint:
    """A diffusion model with its text encoder and autoencoder from a folder in diffusers layout, by name."""
    return Checkpoint(*read_pipeline(PIPELINES.locate(folders, model_path), model_path))


@node("VAELoader", category="loaders", title="Load VAE")
def load_vae(vae_name: VaeName, folders: Folders = INJECTED) -> Vae:
    """An autoencoder on its own, by name."""
    path = VAES.locate(folders, vae_name)
    return read_single_vae(path, vae_name) if path.is_file() else read_vae(path, vae_name)


@node("UNETLoader", category="advanced/loaders", title="Load Diffusion Model")
def load_unet(
    unet_name: UnetName,
    weight_dtype: Annotated[
        WeightType,
        Field(description="What weights are rounded to; the network computes in the precision that --precision says."),
    ] = "default",
    folders: Folders = INJECTED,
) -> Model:
    """A diffusion model without text encoder and autoencoder, by name."""
    model = read_single_unet(UNETS.locate(folders, unet_name), unet_name)
    return replace(model, rounded_to=ROUNDED[weight_dtype])


@node("CLIPLoader", category="advanced/loaders", title="Load CLIP")
def load_clip(
    clip_name: TextEncoderName,
    type: Annotated[ClipType, Field(description=CLIP_TYPES)] = "stable_diffusion",
    device: Annotated[
        Literal["default", "cpu"], Field(description="Where it runs; all run on one device.")
    ] = "default",
    folders: Folders = INJECTED,
) -> Clip:
    """A text encoder on its own, by name."""
    return _text_encoders(folders, type, clip_name)


@node("DualCLIPLoader", category="advanced/loaders")
def load_two_clips(
    clip_name1: TextEncoderName,
    clip_name2: TextEncoderName,
    type: Annotated[DualClipType, Field(description=CLIP_TYPES)] = "sdxl",
    device: Annotated[
        Literal["default", "cpu"], Field(description="Where they run; all run on one device.")
    ] = "default",
    folders: Folders = INJECTED,
) -> Clip:
    """Two text encoders that work together, in either order: SDXL's, Flux's, or any two of Stable Diffusion 3's."""
    return _text_encoders(folders, type, clip_name1, clip_name2)


@node("TripleCLIPLoader", category="advanced/loaders")
def load_three_clips(
    clip_name1: TextEncoderName, clip_name2: TextEncoderName, clip_name3: TextEncoderName, folders: Folders = INJECTED
) -> Clip:
    """The three text encoders of Stable Diffusion 3, in any order."""
    return _text_encoders(folders, "sd3", clip_name1, clip_name2, clip_name3)


def _text_encoders(folders: Folders, type: str, *names: str) -> Clip:
    if type not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise ValueError(f"type {type}: text encoders of this family are not supported; expected one of {known}")
    return read_single_clip([(TEXT_ENCODERS.locate(folders, each), each) for each in names], folders, FAMILIES[type])
