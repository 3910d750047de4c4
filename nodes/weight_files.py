"""Files of weights, whether safetensors or pickles: which tensors they hold. Imports torch for pickles alone."""

from pathlib import Path

from nodes import safetensors_header
from nodes.pickles import is_pickle, permitted
from nodes.safetensors_header import Header, TensorEntry


def read_header(path: Path) -> dict[str, TensorEntry]:
    """The tensors of a file, without their numbers. Raises ModelError, also for a pickle that nobody has allowed."""
    return read_whole_header(path).entries


def read_whole_header(path: Path) -> Header:
    """The tensors of a file and what its maker wrote beside them. Raises ModelError as `read_header` does."""
    if not is_pickle(path):
        return safetensors_header.read_whole_header(path)
    permitted(path)
    from nodes.pickled_weights import pickled_header

    return pickled_header(path)
