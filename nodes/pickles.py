"""Model files that are pickles: who may read them. Imports no torch.

A pickle can run any code when it is opened. They are read only after a person has allowed it, and then numbers alone
are taken out of them (`nodes/pickled_weights.py`). The permission is the process's: it is trust in whoever put the
files there, and no matter of one run.
"""

from pathlib import Path

from nodes.model_errors import ModelError

SUFFIXES = frozenset({".ckpt", ".pt", ".pth", ".bin"})
FLAG = "--allow-pickle"

_allowed = False


def allow(permitted: bool = True) -> None:
    """Let this process read pickles from now on, or no longer."""
    global _allowed
    _allowed = permitted


def allowed() -> bool:
    return _allowed


def is_pickle(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def readable(suffixes: frozenset[str]) -> frozenset[str]:
    """Those of some suffixes that may be read now."""
    return suffixes if _allowed else suffixes - SUFFIXES


def permitted(path: Path) -> Path:
    """The path itself. Raises ModelError for a pickle, unless pickles are allowed."""
    if is_pickle(path) and not _allowed:
        raise ModelError(
            path,
            "this is a pickle, which can run any code when it is opened, so it is not read",
            "Take the .safetensors file of the same model, as most offer it, or make one with "
            f"`latentloom models convert FILE {FLAG}`. With {FLAG} pickles are read, but nothing in them is run.",
        )
    return path
