"""Which models are on offer: what lies in the model folders, and the embedded one. Imports no torch."""

import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from graph.folders import MODEL_SUFFIXES, Folders, inside
from nodes.embedded import LOOMLET
from nodes.model_errors import ModelError
from nodes.pickles import permitted, readable


class CheckpointSource:
    """The checkpoints on offer: the user's, and the embedded model unless the user has one of that name."""

    def names(self, folders: Folders) -> Sequence[str]:
        own = _model_names(folders.models("checkpoints"), "model_index.json")
        embedded = {LOOMLET.name} if (LOOMLET / "model_index.json").is_file() else set[str]()
        return sorted({*own} | embedded)

    def locate(self, folders: Folders, name: str) -> Path:
        path = inside(folders.models("checkpoints"), name)
        if path.exists() and path != folders.models("checkpoints").resolve():
            return permitted(path)
        if name == LOOMLET.name and LOOMLET.is_dir():
            return LOOMLET
        raise _unknown(path, "checkpoint", name, self.names(folders))


class PartSource:
    """Parts of models in folders of their own: single files, and folders in diffusers layout.

    Args:
        kinds: the folders below `models/` that hold them; the first is the one to use.
    """

    def __init__(self, noun: str, *kinds: str) -> None:
        self._noun = noun
        self._kinds = kinds

    def names(self, folders: Folders) -> Sequence[str]:
        return sorted({name for kind in self._kinds for name in _model_names(folders.models(kind), "config.json")})

    def locate(self, folders: Folders, name: str) -> Path:
        for kind in self._kinds:
            path = inside(folders.models(kind), name)
            if path.exists() and path != folders.models(kind).resolve():
                return permitted(path)
        raise _unknown(inside(folders.models(self._kinds[0]), name), self._noun, name, self.names(folders))


class PipelineSource:
    """The folders in `models/diffusers/` that are whole checkpoints."""

    def names(self, folders: Folders) -> Sequence[str]:
        root = folders.models("diffusers")
        return [name for name in _model_names(root, "model_index.json") if (root / name).is_dir()]

    def locate(self, folders: Folders, name: str) -> Path:
        path = inside(folders.models("diffusers"), name)
        if not (path / "model_index.json").is_file():
            raise _unknown(path, "folder with a model_index.json", name, self.names(folders))
        return path


class VaeSource(PartSource):
    """The autoencoders in `models/vae/`."""

    def __init__(self) -> None:
        super().__init__("VAE", "vae")


def _unknown(path: Path, kind: str, name: str, names: Sequence[str]) -> ModelError:
    near = difflib.get_close_matches(name, names, n=1)
    known = ", ".join(names[:20]) or "none"
    return ModelError(
        path, f"there is no {kind} {name!r}", f"Did you mean {near[0]!r}?" if near else f"There are: {known}."
    )


def _model_names(folder: Path, marker: str) -> list[str]:
    """Folders that hold the marker file, and single model files outside them, by their path below `folder`."""
    return sorted(path.relative_to(folder).as_posix() for path in _models_below(folder, folder, marker))


def _models_below(root: Path, folder: Path, marker: str) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    if folder != root and any(entry.name == marker for entry in entries):
        yield folder
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=not _is_loop(Path(entry.path))):
            yield from _models_below(root, Path(entry.path), marker)
        elif Path(entry.name).suffix.lower() in readable(MODEL_SUFFIXES):
            yield Path(entry.path)


def _is_loop(path: Path) -> bool:
    """Whether a link leads to a folder that the path itself lies in."""
    return path.is_symlink() and path.absolute().is_relative_to(path.resolve())
