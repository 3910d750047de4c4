"""Save pictures and latents, each carrying the workflow that made it."""

import secrets
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from graph.cancellation import Progress
from graph.folders import Folders
from graph.node import node
from graph.previews import Delivery
from graph.values import INJECTED, Ui
from nodes.documents import Documents
from nodes.output_names import OutputPlace, fill_in_batch_number, next_number, place_output, write_atomically
from nodes.values import Image, Latent, Mask

FilenamePrefix = Annotated[
    str, Field(description="How file names begin; may hold a sub-folder, %width%, %height%, %year%, %month% …")
]


@dataclass(frozen=True, slots=True)
class SavedFiles(Ui):
    """Files a node wrote: `paths` for this computer, and for clients their names below the output or temp folder."""

    kind: Literal["images", "latents"]
    type: Literal["output", "temp"]
    subfolder: str
    paths: tuple[Path, ...]
    animated: bool = False

    def to_json(self) -> dict[str, list[Any]]:
        place = {"subfolder": self.subfolder, "type": self.type}
        files: dict[str, list[Any]] = {self.kind: [{"filename": path.name, **place} for path in self.paths]}
        return files | ({"animated": [True]} if self.animated else {})


@node("SaveImage", category="image", title="Save Image", lane="io")
def save_image(
    images: Image,
    filename_prefix: FilenamePrefix = "ComfyUI",
    folders: Folders = INJECTED,
    documents: Documents = INJECTED,
    progress: Progress = INJECTED,
) -> SavedFiles:
    """Save pictures as PNG files in the output folder, each with the workflow in it."""
    place = place_output(folders.output, filename_prefix, *size_of_pictures(images))
    return SavedFiles("images", "output", place.subfolder, _write(images, place, documents, progress, 4))


@node("PreviewImage", category="image", title="Preview Image", lane="io")
def preview_image(
    images: Image, folders: Folders = INJECTED, documents: Documents = INJECTED, progress: Progress = INJECTED
) -> SavedFiles:
    """Show pictures without keeping them: they go to the folder of temporary files."""
    return _previewed(images, folders, documents, progress)


@node("MaskPreview", category="mask", title="Preview Mask", lane="io")
def preview_mask(
    mask: Mask, folders: Folders = INJECTED, documents: Documents = INJECTED, progress: Progress = INJECTED
) -> SavedFiles:
    """Show masks as grey pictures without keeping them: white is the area to change."""
    from nodes.maths.masks import to_picture

    return _previewed(Image(to_picture(mask.values)), folders, documents, progress)


@node("SaveImageWebsocket", category="api/image", title="Save Image (Websocket)", lane="io")
def send_image(images: Image, progress: Progress = INJECTED) -> Ui:
    """Send pictures to whoever listens to the job, as PNG files of full size, and keep none."""
    from nodes.picture_files import encode_png, to_uint8

    total = images.pixels.shape[0]
    for index, pixels in enumerate(images.pixels, 1):
        progress(index, total, Delivery(encode_png(to_uint8(pixels), {})))
    return Ui()


@node("SaveLatent", category="_for_testing", lane="io")
def save_latent(
    samples: Latent,
    filename_prefix: FilenamePrefix = "latents/ComfyUI",
    folders: Folders = INJECTED,
    documents: Documents = INJECTED,
) -> SavedFiles:
    """Save latents as a .latent file in the output folder, for LoadLatent."""
    from nodes.latent_files import encode_latent

    place = place_output(folders.output, filename_prefix)
    data = encode_latent(samples.samples, documents.texts())
    path = write_atomically(place.folder, place.prefix, ".latent", data)
    return SavedFiles("latents", "output", place.subfolder, (path,))


def size_of_pictures(images: Image) -> tuple[int, int]:
    """Width and height, as they may stand in file names."""
    height, width = images.pixels.shape[1:3]
    return width, height


def _previewed(images: Image, folders: Folders, documents: Documents, progress: Progress) -> SavedFiles:
    letters = "".join(secrets.choice(string.ascii_lowercase) for _ in range(5))
    place = OutputPlace(folders.temp, "", f"ComfyUI_temp_{letters}")
    return SavedFiles("images", "temp", place.subfolder, _write(images, place, documents, progress, 1))


def _write(
    images: Image, place: OutputPlace, documents: Documents, progress: Progress, compress_level: int
) -> tuple[Path, ...]:
    from nodes.picture_files import encode_png, to_uint8

    texts = documents.texts()
    first = next_number(place.folder, place.prefix)
    total = images.pixels.shape[0]
    paths: list[Path] = []
    for index, pixels in enumerate(images.pixels):
        data = encode_png(to_uint8(pixels), texts, compress_level)
        prefix = fill_in_batch_number(place.prefix, index)
        paths.append(write_atomically(place.folder, prefix, ".png", data, first + index))
        progress(index + 1, total)
    return tuple(paths)
