"""Files of weights as torch pickles them, and the permission to read them."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from nodes import pickles


@contextmanager
def permission() -> Generator[None]:
    """While this lasts, pickles may be read."""
    pickles.allow()
    try:
        yield
    finally:
        pickles.allow(False)


def pickled(path: Path, content: object, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path, **options)
    return path
