"""The picture tower: what turns the judge's answers into the text encoder's states, so that both can be compared."""

from pathlib import Path
from typing import Any

import safetensors.torch

from .text_encoder import directions

files: Any = safetensors.torch


def write(path: Path, seed: int) -> None:
    """Write the directions that the text encoder of this seed was taught, one row for each answer of the judge."""
    files.save_file({"directions": directions(seed).contiguous()}, path)
    path.chmod(0o644)
