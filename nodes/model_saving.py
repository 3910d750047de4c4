"""Save models, text encoders and autoencoders as they are with all their patches, each carrying its workflow."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graph.folders import Folders
from graph.node import node
from graph.values import INJECTED, Ui
from nodes.documents import Documents
from nodes.output_names import place_output, write_atomically
from nodes.saving import FilenamePrefix
from nodes.text_references import FILE_NAMES
from nodes.values import Clip, Model, Vae

if TYPE_CHECKING:
    from nodes.model_files import Saved


@dataclass(frozen=True, slots=True)
class SavedModels(Ui):
    """Model files that a node wrote."""

    paths: tuple[Path, ...]


@node("ModelSave", category="advanced/model_merging", lane="io")
def save_model(
    model: Model,
    filename_prefix: FilenamePrefix = "diffusion_models/ComfyUI",
    folders: Folders = INJECTED,
    documents: Documents = INJECTED,
) -> SavedModels:
    """Save a diffusion model to the output folder, for UNETLoader."""
    from nodes.model_files import model_tensors

    return SavedModels(
        (write_tensors(lambda: model_tensors(model), filename_prefix, folders, documents, _told(model)),)
    )


@node("CheckpointSave", category="advanced/model_merging", title="Save Checkpoint", lane="io")
def save_checkpoint(
    model: Model,
    clip: Clip,
    vae: Vae,
    filename_prefix: FilenamePrefix = "checkpoints/ComfyUI",
    folders: Folders = INJECTED,
    documents: Documents = INJECTED,
) -> SavedModels:
    """Save a model with its text encoder and autoencoder to the output folder, for CheckpointLoaderSimple."""
    from nodes.model_files import checkpoint_tensors

    says = _told(model)
    return SavedModels(
        (write_tensors(lambda: checkpoint_tensors(model, clip, vae), filename_prefix, folders, documents, says),)
    )


def _told(model: Model) -> dict[str, str]:
    """What a network predicts, which its weights do not tell but for transformers'."""
    if model.architecture != "U-Net":
        return {}
    return {"modelspec.predict_key": "v" if model.prediction == "v_prediction" else "epsilon"}


@node("CLIPSave", category="advanced/model_merging", lane="io")
def save_clip(
    clip: Clip,
    filename_prefix: FilenamePrefix = "clip/ComfyUI",
    folders: Folders = INJECTED,
    documents: Documents = INJECTED,
) -> SavedModels:
    """Save a text encoder to the output folder, for CLIPLoader; those that work together, in a file each."""
    from nodes.model_files import clip_tensors

    encoders = {f"_{FILE_NAMES[each.tower]}" if clip.further else "": each for each in clip.encoders}
    return SavedModels(
        tuple(
            write_tensors(lambda each=each: clip_tensors(each), f"{filename_prefix}{end}", folders, documents, {})
            for end, each in encoders.items()
        )
    )


@node("VAESave", category="advanced/model_merging", lane="io")
def save_vae(
    vae: Vae,
    filename_prefix: FilenamePrefix = "vae/ComfyUI_vae",
    folders: Folders = INJECTED,
    documents: Documents = INJECTED,
) -> SavedModels:
    """Save an autoencoder to the output folder, for VAELoader."""
    from nodes.model_files import vae_tensors

    return SavedModels((write_tensors(lambda: vae_tensors(vae), filename_prefix, folders, documents, {}),))


def write_tensors(
    tensors: "Callable[[], Iterator[Saved]]", prefix: str, folders: Folders, documents: Documents, says: dict[str, str]
) -> Path:
    """A safetensors file in the output folder, which carries its workflow. Raises OutputError and ModelError."""
    from nodes.model_files import encode_file

    place = place_output(folders.output, prefix)
    metadata = {"format": "pt", **says, **documents.texts()}
    return write_atomically(place.folder, place.prefix, ".safetensors", encode_file(tensors(), metadata))
