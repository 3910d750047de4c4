"""Save a batch of pictures as one animated file: WebP, PNG or GIF."""

from typing import Annotated, Literal

from pydantic import Field

from graph.folders import Folders
from graph.literals import Widget
from graph.node import node
from graph.values import INJECTED
from nodes.documents import Documents
from nodes.output_names import place_output, write_atomically
from nodes.saving import FilenamePrefix, SavedFiles, size_of_pictures
from nodes.values import Image

Fps = Annotated[float, Field(ge=0.01, le=1000, description="Pictures per second."), Widget(step=0.01)]


@node("SaveAnimatedWEBP", category="image/animation", lane="io")
def save_webp(
    images: Image,
    filename_prefix: FilenamePrefix = "ComfyUI",
    fps: Fps = 6.0,
    lossless: Annotated[bool, Field(description="Every pixel as it is; otherwise smaller files.")] = True,
    quality: Annotated[
        int, Field(ge=0, le=100, description="100 is best; lossless: how long to look for a small file.")
    ] = 80,
    method: Annotated[Literal["default", "fastest", "slowest"], Field(description="Slower makes smaller files.")] = (
        "default"
    ),
    folders: Folders = INJECTED,
    documents: Documents = INJECTED,
) -> SavedFiles:
    """Save the pictures of a batch as an animated WebP file, with the workflow in it."""
    from nodes.animation_files import encode_webp

    data = encode_webp(images.pixels, documents.texts(), fps, lossless, quality, method)
    return _saved(images, folders, filename_prefix, ".webp", data)


@node("SaveAnimatedPNG", category="image/animation", lane="io")
def save_apng(
    images: Image,
    filename_prefix: FilenamePrefix = "ComfyUI",
    fps: Fps = 6.0,
    compress_level: Annotated[int, Field(ge=0, le=9, description="9 is smallest, 0 fastest.")] = 4,
    folders: Folders = INJECTED,
    documents: Documents = INJECTED,
) -> SavedFiles:
    """Save the pictures of a batch as an animated PNG file, with the workflow in it."""
    from nodes.animation_files import encode_apng

    data = encode_apng(images.pixels, documents.texts(), fps, compress_level)
    return _saved(images, folders, filename_prefix, ".png", data)


@node("SaveAnimatedGIF", category="image/animation", lane="io")
def save_gif(
    images: Image,
    filename_prefix: FilenamePrefix = "ComfyUI",
    fps: Annotated[float, Field(ge=0.01, le=50, description="Pictures per second."), Widget(step=0.01)] = 6.0,
    loop: Annotated[bool, Field(description="Begin again at the end.")] = True,
    folders: Folders = INJECTED,
    documents: Documents = INJECTED,
) -> SavedFiles:
    """Save the pictures of a batch as an animated GIF file of 256 colours each, with the workflow in it."""
    from nodes.animation_files import encode_gif

    data = encode_gif(images.pixels, documents.texts(), fps, loop)
    return _saved(images, folders, filename_prefix, ".gif", data)


def _saved(images: Image, folders: Folders, filename_prefix: str, suffix: str, data: bytes) -> SavedFiles:
    place = place_output(folders.output, filename_prefix, *size_of_pictures(images))
    path = write_atomically(place.folder, place.prefix, suffix, data)
    return SavedFiles("images", "output", place.subfolder, (path,), animated=True)
