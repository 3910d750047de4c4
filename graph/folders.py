"""Where things are: the data folder with its models, inputs, outputs and temporary files."""

import os
from dataclasses import dataclass
from pathlib import Path

from graph.values import Service

MODEL_SUFFIXES = frozenset({".safetensors", ".ckpt", ".pt", ".pth", ".bin"})


@dataclass(frozen=True)
class Folders(Service):
    """The folders of one installation. Nothing is created before something is written there."""

    data: Path
    output: Path
    examples: Path | None = None
    """Read-only pictures that ship with the program; the user's own `input/` comes first."""
    input_folder: Path | None = None
    """Where input files are if not in `input/`."""
    temp_folder: Path | None = None
    """Where temporary files are if not in `temp/`."""

    @staticmethod
    def below(data: Path, output: Path | None = None, examples: Path | None = None) -> "Folders":
        """The usual layout below one data folder."""
        return Folders(data=data, output=output or data / "output", examples=examples)

    @property
    def temp(self) -> Path:
        return self.temp_folder or self.data / "temp"

    @property
    def store(self) -> Path:
        """Where results are kept on disk."""
        return self.data / "store"

    @property
    def prepared(self) -> Path:
        """Where networks are kept in the form in which this machine computes with them."""
        return self.data / "prepared"

    @property
    def inputs(self) -> tuple[Path, ...]:
        """Where input files are looked for, in order."""
        return (self.input_folder or self.data / "input", *([self.examples] if self.examples else []))

    @property
    def own_nodes(self) -> Path:
        return self.data / "nodes"

    def models(self, kind: str) -> Path:
        """The folder of one kind of model: `checkpoints`, `vae`, `loras` …"""
        return self.data / "models" / kind


def default_data_folder() -> Path:
    """`LATENTLOOM_DATA`, or the platform's place for a user's application data."""
    stated = os.environ.get("LATENTLOOM_DATA")
    if stated:
        return Path(stated).expanduser()
    from platformdirs import user_data_path

    return user_data_path("latentloom", appauthor=False)


def inside(folder: Path, name: str) -> Path:
    """`folder / name`, refused with ValueError when the name leads outside the folder.

    Links that the owner of the folder has put there are followed wherever they lead.
    """
    path = Path(os.path.abspath(folder / name))
    if not path.is_relative_to(os.path.abspath(folder)):
        raise ValueError(f"{name!r} leads out of the folder {folder}")
    return path


def files_below(folder: Path, suffixes: frozenset[str]) -> list[str]:
    """Names of files below a folder, sorted, with `/` between parts; hidden ones are left out."""
    found: list[str] = []
    # Each folder with the real paths of those around it: a link back to one of them would never end.
    pending: list[tuple[Path, tuple[str, ...]]] = [(folder, (os.path.realpath(folder),))]
    while pending:
        current, around = pending.pop()
        try:
            entries = list(os.scandir(current))
        except OSError:
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = Path(entry.path)
            if path.is_dir():
                real = os.path.realpath(path)
                if real not in around:
                    pending.append((path, (*around, real)))
            elif not suffixes or path.suffix.lower() in suffixes:
                found.append(path.relative_to(folder).as_posix())
    return sorted(found)
