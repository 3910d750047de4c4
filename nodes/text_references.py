"""Text encoders as the families of models use them: which layer, which norm, and what becomes of several."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nodes.identification import Family
from nodes.model_errors import ModelError
from nodes.values import Clip, Joined, Tower, Weights

ORDER: tuple[Tower, ...] = ("CLIP-L", "CLIP-H", "CLIP-G", "T5")
"""In which text encoders stand that work together."""
FILE_NAMES: Mapping[Tower, str] = {"CLIP-L": "clip_l", "CLIP-H": "clip_h", "CLIP-G": "clip_g", "T5": "t5xxl"}
"""What they are called in names of files, and in names of tensors in whole files."""
JOINED: Mapping[Family, Joined] = {"SD 3": "SD 3", "Flux": "Flux"}
LOADERS: Mapping[Joined, str] = {
    "SD 3": "TripleCLIPLoader, or with DualCLIPLoader of type sd3",
    "Flux": "DualCLIPLoader of type flux",
    "side by side": "CLIPLoader, or with DualCLIPLoader if it is an SDXL",
}
"""The nodes that load the text encoders which a model's file may lack."""


def family_by_texts(configs: Sequence[Mapping[str, Any]]) -> Family:
    """The family whose text encoders CLIPs of such configurations are."""
    if len(configs) > 1:
        return "SDXL"
    if configs[0]["hidden_act"] == "quick_gelu":
        return "SD 1"
    return "SD 2" if configs[0]["hidden_size"] <= 1024 else "SDXL refiner"


def tower_of(config: Mapping[str, Any], family: Family) -> Tower:
    """Which text encoder a configuration is of, in a family."""
    if is_t5(config):
        return "T5"
    if config["hidden_act"] == "quick_gelu":
        return "CLIP-L"
    return "CLIP-H" if family in ("SD 1", "SD 2") else "CLIP-G"


def is_t5(config: Mapping[str, Any]) -> bool:
    return "d_model" in config


def text_reference(weights: Weights, tokenizer: Weights, tower: Tower, family: Family) -> Clip:
    """A text encoder as a family uses it: which layer, with the final norm or not, and what fills up a chunk."""
    pad = None if tower in ("CLIP-L", "T5") else 0
    clip = Clip(weights, tokenizer, pad=pad, tower=tower)
    match family:
        case _ if tower == "T5":
            return clip
        case "SD 1" | "Flux":
            return clip
        case "SD 2":
            return replace(clip, layer=-2)
        case "SDXL" | "SDXL refiner" | "SD 3":
            return replace(clip, layer=-2, normed=False, projected=tower == "CLIP-G")


def together(path: Path, clips: Sequence[Clip], family: Family) -> Clip:
    """Text encoders of one family as one value, in whichever order they come. Raises ModelError."""
    ordered = sorted(clips, key=lambda clip: ORDER.index(clip.tower))
    towers = [clip.tower for clip in ordered]
    found = " and ".join(towers)
    if len(set(towers)) < len(towers):
        raise ModelError(path, f"of the text encoders two are of the same kind ({found})", "Choose different ones.")
    match family:
        case "Flux" if towers != ["CLIP-L", "T5"]:
            raise ModelError(path, f"Flux needs a CLIP-L and a T5, but there is {found}", "Choose one file of each.")
        case "SD 1" | "SD 2" | "SDXL" | "SDXL refiner" if "T5" in towers or len(towers) not in (1, 2):
            reason = f"the text encoders of {family} are one or two CLIPs, but there is {found}"
            raise ModelError(path, reason, "With a T5, choose the type sd3 or flux.")
        case _:
            first, *further = ordered
            return replace(first, further=tuple(further), joined=JOINED.get(family, "side by side"))


def absent(weights: Weights, family: Family) -> Clip:
    """What stands for the text encoders of a model whose file holds none: every use of it says so."""
    return Clip(weights, weights, joined=JOINED.get(family, "side by side"), absent=True)


def refuse_absent(clip: Clip) -> None:
    """Raises ModelError for what stands for text encoders that a model's file does not hold."""
    if clip.absent:
        raise ModelError(clip.weights.path, "it holds no text encoder", f"Load them with {LOADERS[clip.joined]}.")
