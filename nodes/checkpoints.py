"""Load models by name: what a loader gives is a reference; the weights are read when a node needs them."""

from typing import Annotated, NamedTuple

from graph.folders import Folders
from graph.node import node
from graph.values import INJECTED
from nodes.model_folders import CheckpointSource, VaeSource, read_checkpoint, read_vae
from nodes.values import Clip, Model, Vae

CHECKPOINTS = CheckpointSource()
VAES = VaeSource()

CheckpointName = Annotated[str, CHECKPOINTS]
VaeName = Annotated[str, VAES]


class Checkpoint(NamedTuple):
    """The three parts of a latent diffusion model."""

    MODEL: Model
    CLIP: Clip
    VAE: Vae


@node("CheckpointLoaderSimple", category="loaders", title="Load Checkpoint")
def load_checkpoint(ckpt_name: CheckpointName, folders: Folders = INJECTED) -> Checkpoint:
    """A diffusion model with its text encoder and autoencoder, by name."""
    return Checkpoint(*read_checkpoint(CHECKPOINTS.locate(folders, ckpt_name), ckpt_name))


@node("VAELoader", category="loaders", title="Load VAE")
def load_vae(vae_name: VaeName, folders: Folders = INJECTED) -> Vae:
    """An autoencoder on its own, by name."""
    return read_vae(VAES.locate(folders, vae_name), vae_name)
