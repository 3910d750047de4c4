"""Networks that look at pictures: which there are in `models/vision/`, and what each was made for. Imports no torch."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from graph.folders import Folders, files_below, inside
from graph.identity import content_identity, digest, encode
from graph.node import node
from graph.values import INJECTED, Value
from nodes.embedded import DIRECTIONS, JUDGE, LOOMLET
from nodes.model_errors import ModelError
from nodes.values import Clip, Weights
from nodes.weight_files import read_header

Task = Literal[
    "text-image similarity",
    "image classification",
    "object detection",
    "zero-shot object detection",
    "segmentation",
    "captioning",
]

LAYOUT = (
    "A vision model is a folder as transformers saves it: config.json and model.safetensors beside "
    "preprocessor_config.json and, if it reads or writes texts, its tokenizer's files."
)
TASKS: tuple[tuple[Task, str], ...] = (
    ("text-image similarity", r"(CLIP|Siglip2?|AltCLIP|ChineseCLIP|MetaClip2|Align)Model"),
    ("image classification", r"\w+ForImageClassification(WithTeacher)?"),
    ("zero-shot object detection", r"(OwlViT|Owlv2)ForObjectDetection"),
    ("object detection", r"\w+ForObjectDetection"),
    ("segmentation", r"\w+For(Semantic|Instance|Universal)?Segmentation"),
    ("captioning", r"VisionEncoderDecoderModel|GitForCausalLM|BlipForConditionalGeneration"),
)
"""Tasks, and what transformers calls the networks that do them."""

TEXTS: frozenset[Task] = frozenset({"text-image similarity", "zero-shot object detection", "captioning"})
"""Tasks of networks that come with a tokenizer."""

SLOTS = ("object", "colour", "background", "place", "time", "digit")
"""What the embedded model's judge can be asked about."""


@dataclass(frozen=True, slots=True)
class VisionModel(Value, kind="VISION_MODEL"):
    """A reference to a network that looks at pictures: its weights, task and class.

    `text` is the text encoder whose states the embedded model's picture tower speaks; `slot` is what its classifier is
    asked about. Both are empty for networks of transformers, which bring what they need.
    """

    weights: Weights
    task: Task
    architecture: str
    text: Clip | None = None
    slot: str = ""


class WrongTask(ValueError):
    """A vision model that was made for something else than a node does."""

    def __init__(self, model: VisionModel, wanted: Sequence[Task]) -> None:
        super().__init__(
            f"{model.weights.name!r} is a {model.architecture}, which does {model.task}, but a model for "
            f"{' or '.join(wanted)} is needed here; choose another in VisionModelLoader"
        )
        self.model = model
        self.wanted = tuple(wanted)


def require(model: VisionModel, *wanted: Task) -> None:
    """Raise WrongTask unless the model does one of these."""
    if model.task not in wanted:
        raise WrongTask(model, wanted)


class VisionSource:
    """The folders in `models/vision/`, and what the embedded model sees with."""

    def names(self, folders: Folders) -> Sequence[str]:
        files = files_below(folders.models("vision"), frozenset({".json"}))
        own = {name.removesuffix("/config.json") for name in files if name.endswith("/config.json")}
        return sorted(own | set(self.embedded))

    def locate(self, folders: Folders, name: str) -> Path:
        root = folders.models("vision")
        path = inside(root, name)
        if path.exists() and path != root.resolve():
            return path
        if name in self.embedded:
            return JUDGE
        names = self.names(folders)
        near = difflib.get_close_matches(name, names, n=1)
        advice = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(names[:20])}."
        raise ModelError(path, f"there is no vision model {name!r}", advice)

    @cached_property
    def embedded(self) -> tuple[str, ...]:
        return (LOOMLET.name, *(f"{LOOMLET.name}-{slot}" for slot in SLOTS)) if JUDGE.is_file() else ()


VISION_MODELS = VisionSource()


@node("VisionModelLoader", category="loaders", title="Load Vision Model", lane="io")
def load_vision_model(
    model_name: Annotated[
        str,
        VISION_MODELS,
        Field(description="A folder in models/vision; loomlet compares texts with pictures, loomlet-digit names them."),
    ],
    folders: Folders = INJECTED,
) -> VisionModel:
    """A network that looks at pictures, by name: for similarity, labels, boxes, masks or captions."""
    path = VISION_MODELS.locate(folders, model_name)
    return _embedded(model_name) if path == JUDGE else read_vision_model(path, model_name)


def _embedded(name: str) -> VisionModel:
    from nodes.checkpoints import load_checkpoint

    weights = Weights(JUDGE, _identity([JUDGE, DIRECTIONS]), name)
    slot = name.removeprefix(LOOMLET.name).removeprefix("-")
    if slot:
        return VisionModel(weights, "image classification", "embedded classifier", slot=slot)
    nowhere = Folders.below(LOOMLET.parent)
    clip = load_checkpoint.function(LOOMLET.name, nowhere).CLIP
    return VisionModel(weights, "text-image similarity", "embedded CLIP", text=clip)


class _Config(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    architectures: list[str] = Field(default=[], max_length=16)


def read_vision_model(folder: Path, name: str) -> VisionModel:
    """A reference to a network of transformers. Reads its configuration and file identities, never weights.

    Raises ModelError, which says what is missing or unsuitable and what to do.
    """
    if not folder.is_dir():
        raise ModelError(folder, "this is a file", LAYOUT)
    path = folder / "config.json"
    try:
        config = _Config.model_validate_json(_content(path))
    except ValidationError as error:
        raise ModelError(path, f"this is no model's configuration ({error.errors()[0]['msg']})", LAYOUT) from error
    architecture = config.architectures[0] if config.architectures else ""
    task = _task(architecture)
    if task is None:
        known = ", ".join(task for task, _ in TASKS)
        found = f"it is a {architecture}" if architecture else "it names no architecture"
        raise ModelError(path, f"{found}, which does none of what is known here", f"Known are: {known}.")
    if not (folder / "preprocessor_config.json").is_file() and not (folder / "processor_config.json").is_file():
        raise ModelError(folder, "preprocessor_config.json is missing", LAYOUT)
    if task in TEXTS and not any((folder / file).is_file() for file in ("tokenizer.json", "vocab.json", "vocab.txt")):
        raise ModelError(folder, "tokenizer.json is missing, and there is no vocab.json or vocab.txt", LAYOUT)
    return VisionModel(Weights(folder, _identity(_files(folder)), name), task, architecture)


def _task(architecture: str) -> Task | None:
    return next((task for task, names in TASKS if re.fullmatch(names, architecture)), None)


def _files(folder: Path) -> list[Path]:
    """Everything the network is made of: weights that are whole, and the small files beside them."""
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not weights:
        raise ModelError(folder, "model.safetensors is missing", LAYOUT)
    for file in weights:
        read_header(file)
    return [*weights, *sorted(path for path in folder.glob("*") if path.suffix in {".json", ".txt", ".model"})]


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise ModelError(path.parent, f"{path.name} is missing", LAYOUT)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(path, f"the file cannot be read ({error.strerror or error})") from error


def _identity(files: Sequence[Path]) -> str:
    try:
        return digest(b"vision", *(encode([path.name, content_identity(path)]) for path in files)).hex()
    except OSError as error:
        raise ModelError(files[0].parent, f"the files cannot be read ({error.strerror or error})") from error
