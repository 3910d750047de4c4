"""Load pictures, masks and latents from the input folders."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from graph.folders import Folders, files_below, inside
from graph.literals import Widget
from graph.node import node
from graph.values import INJECTED
from nodes.values import Image, Latent, Mask

PICTURE_SUFFIXES = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}
)
ANNOTATED = re.compile(r"(?P<name>.*?) ?\[(?P<folder>input|output|temp)\]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class InputFiles:
    """Files of the input folders, by name. `name [output]` and `name [temp]` mean a file saved there."""

    noun: str
    suffixes: frozenset[str]

    def names(self, folders: Folders) -> Sequence[str]:
        return sorted({name for folder in folders.inputs for name in files_below(folder, self.suffixes)})

    def locate(self, folders: Folders, name: str) -> Path:
        """The first such file. Raises FileNotFoundError, and ValueError for a name that leads elsewhere."""
        annotated = ANNOTATED.fullmatch(name)
        plain, kind = (annotated["name"], annotated["folder"]) if annotated else (name, "input")
        places = {"input": folders.inputs, "output": (folders.output,), "temp": (folders.temp,)}[kind]
        found = next((path for folder in places if (path := inside(folder, plain)).is_file()), None)
        if found is None:
            raise FileNotFoundError(f"there is no {self.noun} of this name in {' or '.join(map(str, places))}")
        return found


@dataclass(frozen=True, slots=True)
class OutputFiles(InputFiles):
    """Files of the output folder, by names that end in ` [output]`."""

    def names(self, folders: Folders) -> Sequence[str]:
        return [f"{name} [output]" for name in files_below(folders.output, self.suffixes)]

    def locate(self, folders: Folders, name: str) -> Path:
        return InputFiles.locate(self, folders, name if ANNOTATED.fullmatch(name) else f"{name} [output]")


PICTURES = InputFiles("picture", PICTURE_SUFFIXES)
OUTPUT_PICTURES = OutputFiles("picture", PICTURE_SUFFIXES)
LATENTS = InputFiles("latent file", frozenset({".latent"}))

PictureName = Annotated[
    str, PICTURES, Field(description="A file in the input folder, or below it."), Widget(image_upload=True)
]
OutputPictureName = Annotated[
    str,
    OUTPUT_PICTURES,
    Field(description="A file in the output folder, or below it."),
    Widget(image_upload=True, image_folder="output"),
]
LatentName = Annotated[str, LATENTS, Field(description="A .latent file in the input folder, or below it.")]
Channel = Literal["alpha", "red", "green", "blue"]


class LoadedImage(NamedTuple):
    """A picture, and where it is transparent."""

    IMAGE: Image
    MASK: Mask


@node("LoadImage", category="image", title="Load Image", lane="io")
def load_image(image: PictureName, folders: Folders = INJECTED) -> LoadedImage:
    """A picture from a file, and where it is transparent as a mask."""
    from nodes.picture_files import decode_picture

    picture = decode_picture(PICTURES.locate(folders, image))
    return LoadedImage(Image(picture.pixels), Mask(picture.mask))


@node("LoadImageOutput", category="image", title="Load Image (from Outputs)", stage="experimental", lane="io")
def load_output(image: OutputPictureName, folders: Folders = INJECTED) -> LoadedImage:
    """A picture that was saved to the output folder, and where it is transparent as a mask."""
    from nodes.picture_files import decode_picture

    picture = decode_picture(OUTPUT_PICTURES.locate(folders, image))
    return LoadedImage(Image(picture.pixels), Mask(picture.mask))


@node("LoadImageMask", category="mask", title="Load Image (as Mask)", lane="io")
def load_mask(
    image: PictureName,
    channel: Annotated[Channel, Field(description="alpha: where the picture is transparent.")] = "alpha",
    folders: Folders = INJECTED,
) -> Mask:
    """One channel of a picture from a file as a mask."""
    from nodes.picture_files import decode_mask

    return Mask(decode_mask(PICTURES.locate(folders, image), channel))


@node("LoadLatent", category="_for_testing", lane="io")
def load_latent(latent: LatentName, folders: Folders = INJECTED) -> Latent:
    """Latents from a file made by SaveLatent."""
    from nodes.latent_files import decode_latent

    return Latent(decode_latent(LATENTS.locate(folders, latent)))
