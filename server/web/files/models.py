"""Model files: which kinds there are, what can be named, and what is known of a file without its weights."""

import base64
import binascii
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import from_json

from graph.folders import MODEL_SUFFIXES, Folders, files_below, inside
from nodes.pickles import readable
from server.web.files.names import inside as named_inside
from server.web.files.names import is_file
from server.web.files.pictures import SUFFIXES, preview
from server.web.problems import Refused

# The names that the ecosystem's editors know, whether there are such models or not.
KINDS = (
    "checkpoints",
    "configs",
    "loras",
    "vae",
    "text_encoders",
    "diffusion_models",
    "clip_vision",
    "style_models",
    "embeddings",
    "diffusers",
    "vae_approx",
    "controlnet",
    "gligen",
    "ipadapter",
    "upscale_models",
    "hypernetworks",
    "photomaker",
    "classifiers",
    "model_patches",
    "audio_encoders",
)
LARGEST_HEADER = 4 * 1024 * 1024
LARGEST_COVER = 8 * 1024 * 1024
PREVIEW_QUALITY = 90


class ModelFile(BaseModel):
    """A model, as lists with details have it. Times are seconds since 1970."""

    name: str
    pathIndex: int = 0
    modified: float
    created: float
    size: int


def kinds(folders: Folders) -> list[str]:
    """The kinds of models: the usual ones, and every other folder beside theirs."""
    own: list[str] = []
    with suppress(OSError):
        own = [entry.name for entry in os.scandir(folders.models("")) if entry.is_dir() and entry.name[0] != "."]
    return [*KINDS, *sorted(set(own) - {*KINDS})]


def names(folders: Folders, kind: str) -> Sequence[str]:
    """The models of a kind, by the names under which nodes load them. Refuses a kind that there is not."""
    from nodes.checkpoints import CHECKPOINTS, VAES

    if kind not in kinds(folders):
        raise Refused(404, f"there are no models called {kind!r}")
    offered = {"checkpoints": CHECKPOINTS, "vae": VAES}.get(kind)
    return offered.names(folders) if offered else files_below(folders.models(kind), readable(MODEL_SUFFIXES))


def details(folders: Folders, kind: str) -> list[ModelFile]:
    """The models of a kind, with size and times. A model of several files counts as all of them together."""
    return [each for name in names(folders, kind) if (each := _details(folders, kind, name))]


def _details(folders: Folders, kind: str, name: str) -> ModelFile | None:
    try:
        states = [os.stat(path) for path in _files_of(_located(folders, kind, name))]
    except OSError:
        return None
    if not states:
        return None
    return ModelFile(
        name=name,
        modified=max(state.st_mtime for state in states),
        created=min(state.st_ctime for state in states),
        size=sum(state.st_size for state in states),
    )


def _located(folders: Folders, kind: str, name: str) -> Path:
    """Where a model that is on offer is; one of them ships with the program."""
    from nodes.checkpoints import CHECKPOINTS

    if kind == "checkpoints":
        return CHECKPOINTS.locate(folders, name)
    return inside(folders.models(kind), name)


def _files_of(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for folder, _, files in os.walk(path):
        yield from (Path(folder, name) for name in files)


def metadata(folders: Folders, kind: str, name: str) -> dict[str, Any] | None:
    """What a safetensors file says of itself; None where there is nothing of the kind."""
    if kind not in kinds(folders) or not name.lower().endswith(".safetensors"):
        return None
    # Links to models elsewhere are usual, and only what describes the model is read.
    path = named_inside(folders.models(kind), name, follow=True)
    return _metadata_of(path) if is_file(path) else None


def _metadata_of(path: Path) -> dict[str, Any] | None:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > LARGEST_HEADER:
            return None
        text = file.read(length)
    try:
        header = from_json(text)
        return dict(header["__metadata__"])
    except (ValueError, LookupError, TypeError):
        return None


def model_preview(folders: Folders, kind: str, name: str, most_pixels: int) -> bytes | None:
    """A picture of what a model makes, as WebP: one that lies beside it, or is in its metadata."""
    if kind not in kinds(folders):
        return None
    path = named_inside(folders.models(kind), name, follow=True)
    stem = path.with_suffix("") if path.suffix.lower() in MODEL_SUFFIXES else path
    beside = (stem.with_name(f"{stem.name}{middle}{suffix}") for suffix in SUFFIXES for middle in ("", ".preview"))
    picture = next((each for each in beside if is_file(each)), None) or _cover(folders, kind, name)
    return None if picture is None else preview(picture, "webp", PREVIEW_QUALITY, most_pixels)


def _cover(folders: Folders, kind: str, name: str) -> bytes | None:
    """The first picture that a training program has put into the file."""
    try:
        covers = from_json((metadata(folders, kind, name) or {})["ssmd_cover_images"])
        return base64.b64decode(covers[0], validate=True)
    except (ValueError, LookupError, TypeError, binascii.Error):
        return None
