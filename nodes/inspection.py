"""A report for people on what a model file is."""

from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path

from nodes.identification import Identified, Unrecognised, identify
from nodes.model_errors import ModelError
from nodes.safetensors_header import TensorEntry
from nodes.weight_files import read_whole_header

SHOWN = 8
"""How many names of an unknown file are shown."""


@dataclass(frozen=True, slots=True)
class Description:
    """What a file is, in a few words, and what is known of it, line by line."""

    title: str
    lines: tuple[str, ...]
    known: bool


def describe(path: Path) -> Description:
    """What a model file or a folder in diffusers layout is. Raises ModelError for what cannot be read."""
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise ModelError(path, "there is no such file")
    header = read_whole_header(path)
    found = identify(header.entries)
    title = "not recognised" if isinstance(found, Unrecognised) else str(found)
    if isinstance(found, Unrecognised):
        lines = [f"{line}" for line in str(found).split("; ")]
        lines.append(f"its names: {', '.join(sorted(header.entries)[:SHOWN])} …")
    else:
        named = {
            "transformer" if found.family in ("SD 3", "Flux") else "U-Net": found.unet,
            "VAE": found.vae,
            "control": found.control,
            **{f"text encoder {i + 1}": t for i, t in enumerate(found.texts)},
        }
        lines = [_part(part, prefix, header.entries) for part, prefix in named.items() if prefix is not None]
        lines += found.notes
    lines.append(_sizes(header.entries))
    lines += [
        f"{name}: {value[:100]}" for name, value in sorted(header.metadata.items()) if name.startswith("modelspec.")
    ]
    return Description(title, tuple(lines), not isinstance(found, Unrecognised))


def _part(part: str, prefix: str, entries: dict[str, TensorEntry]) -> str:
    inside = [entry for name, entry in entries.items() if name.startswith(prefix)]
    numbers = sum(prod(entry.shape) for entry in inside)
    return f"{part}: {len(inside)} tensors, {numbers / 1e6:,.1f} M numbers{f', below {prefix}' if prefix else ''}"


def _sizes(entries: dict[str, TensorEntry]) -> str:
    types = Counter(entry.dtype for entry in entries.values())
    kinds = ", ".join(f"{count} {dtype}" for dtype, count in types.most_common())
    return (
        f"{len(entries)} tensors ({kinds or 'none'}), {sum(entry.nbytes for entry in entries.values()) / 1e6:,.1f} MB"
    )


def _folder(path: Path) -> Description:
    from nodes.clip_vision import read_clip_vision
    from nodes.control_files import folder_design, read_control_net
    from nodes.model_folders import TEXT_STEM, read_vae, weight_files
    from nodes.pipelines import read_pipeline

    if (path / "model_index.json").is_file():
        model, _, _ = read_pipeline(path, path.name)
        return Description("checkpoint (diffusers folder)", (f"predicts {model.prediction}",), True)
    if (design := folder_design(path)) is not None:
        read_control_net(path, path.name)
        return Description(f"{design} (diffusers folder)", (), True)
    if any((path / f"{TEXT_STEM}.safetensors{end}").is_file() for end in ("", ".index.json")):
        files = weight_files(path, TEXT_STEM)
        entries = {name: entry for file in files for name, entry in read_whole_header(file).entries.items()}
        found = identify(entries)
        if isinstance(found, Identified) and found.kind == "text encoder":
            return Description("text encoder (transformers folder)", (*found.notes, _sizes(entries)), True)
        read_clip_vision(path, path.name)
        return Description("CLIP vision (transformers folder)", (), True)
    read_vae(path, path.name)
    return Description("VAE (diffusers folder)", (), True)
