"""unCLIP: networks that take what CLIP says of a picture as a prompt, Ramesh et al. (2022)."""

from dataclasses import replace
from typing import Annotated, NamedTuple

from pydantic import Field

from graph.folders import Folders
from graph.literals import Widget
from graph.node import node
from graph.values import INJECTED
from nodes.checkpoints import CHECKPOINTS, CheckpointName
from nodes.clip_vision import read_clip_vision
from nodes.model_errors import ModelError
from nodes.picture_prompts import ClipVision, ClipVisionOutput, PicturePrompt
from nodes.single_files import read_single_checkpoint
from nodes.values import Clip, Conditioning, Model, Vae


class UnclipCheckpoint(NamedTuple):
    """The parts of a latent diffusion model that takes pictures as prompts."""

    MODEL: Model
    CLIP: Clip
    VAE: Vae
    CLIP_VISION: ClipVision


@node("unCLIPCheckpointLoader", category="loaders", title="Load unCLIP Checkpoint")
def load_unclip_checkpoint(ckpt_name: CheckpointName, folders: Folders = INJECTED) -> UnclipCheckpoint:
    """A diffusion model that takes pictures as prompts, with its encoders and autoencoder, from one file."""
    path = CHECKPOINTS.locate(folders, ckpt_name)
    if path.is_dir():
        raise ModelError(path, "this is a folder", "An unCLIP checkpoint is one file in the original layout.")
    model, clip, vae = read_single_checkpoint(path, ckpt_name, folders)
    if model.variant != "unCLIP":
        reason = "its network takes no picture as a prompt, as unCLIP's does"
        raise ModelError(path, reason, "Load it with CheckpointLoaderSimple.")
    return UnclipCheckpoint(model, clip, vae, read_clip_vision(path, ckpt_name))


@node("unCLIPConditioning", category="conditioning")
def add_pictures(
    conditioning: Conditioning,
    clip_vision_output: ClipVisionOutput,
    strength: Annotated[
        float, Field(ge=-10, le=10, description="How much the picture counts."), Widget(step=0.01)
    ] = 1.0,
    noise_augmentation: Annotated[
        float, Field(ge=0, le=1, description="How freely it is followed: 0 closely, 1 hardly."), Widget(step=0.01)
    ] = 0.0,
) -> Conditioning:
    """Add a picture to a prompt for an unCLIP model; of several, the model is told the weighted sum."""
    if not strength:
        return conditioning
    picture = PicturePrompt(clip_vision_output.image_embeds, strength, noise_augmentation)
    prompts = (replace(prompt, pictures=(*prompt.pictures, picture)) for prompt in conditioning.prompts)
    return Conditioning(tuple(prompts))
