"""Write the tensors of one model file into a safetensors file, under the names they have."""

from functools import partial
from pathlib import Path

from nodes.model_files import Saved, encode_file
from nodes.open_weights import OpenWeights
from nodes.output_names import write_as
from nodes.weight_files import read_whole_header


def convert(path: Path, target: Path) -> int:
    """Write `target`, and return how many tensors there are. Raises ModelError, and OutputError if it is there."""
    header, files = read_whole_header(path), OpenWeights()
    tensors = [
        Saved(name, entry.shape, entry.dtype, partial(files.tensor, path, name))
        for name, entry in header.entries.items()
    ]
    write_as(target, encode_file(tensors, {"format": "pt", **header.metadata}))
    return len(tensors)
