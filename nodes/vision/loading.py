"""Turn a folder of transformers into a network and its processor: offline, and without code of its own."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch import device as Device
from torch.nn import Module

from graph.collector import collector_paused
from nodes import pickles
from nodes.embedded import DIRECTIONS
from nodes.model_errors import ModelError
from nodes.models import ModelPool
from nodes.packed_layers import compute_directly
from nodes.precision import Precision
from nodes.vision.models import LAYOUT, Task, VisionModel

PRECISION = Precision("fp32", False, "small differences between scores matter")
LOCAL: Mapping[str, Any] = {"local_files_only": True, "trust_remote_code": False}
CLASSES: Mapping[Task, tuple[str, ...]] = {
    "text-image similarity": ("AutoModel",),
    "image classification": ("AutoModelForImageClassification",),
    "object detection": ("AutoModelForObjectDetection",),
    "zero-shot object detection": ("AutoModelForZeroShotObjectDetection",),
    "segmentation": ("AutoModelForSemanticSegmentation", "AutoModelForUniversalSegmentation"),
    "captioning": ("AutoModelForImageTextToText",),
}
NAMED = 3
"""How many weights an error names."""

DAMAGE = (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError, ImportError)
"""How transformers reports a folder that it cannot use."""


def network(models: ModelPool, model: VisionModel) -> Any:
    """The network, from the pool. Raises ModelError."""

    def load(device: Device) -> Module:
        return load_network(model, device)

    return models.network(model.weights, "vision model", PRECISION, load)


def load_network(model: VisionModel, device: Device) -> Module:
    module = _read(model).requires_grad_(False).eval().to(device)
    compute_directly(module)
    return module


def _read(model: VisionModel) -> Module:
    if model.weights.path.is_file():
        return _tower(model.weights.path)
    with collector_paused():
        import transformers
        from transformers.utils import logging as reports
    folder = model.weights.path
    reports.disable_progress_bar()
    try:
        config = cast(Any, transformers).AutoConfig.from_pretrained(folder, **LOCAL)
        # transformers, too, takes numbers alone out of pickles.
        pickled = pickles.allowed() and not any(folder.glob("*.safetensors"))
        found = _auto(transformers, model, config).from_pretrained(
            folder, config=config, use_safetensors=not pickled, dtype=torch.float32, output_loading_info=True, **LOCAL
        )
    except DAMAGE as error:
        first = str(error).strip().partition("\n")[0]
        raise ModelError(folder, f"transformers cannot make a network of it ({first})", LAYOUT) from error
    module, report = cast("tuple[Module, dict[str, Any]]", found)
    missing = sorted(map(str, report["missing_keys"])) + sorted(map(str, report["mismatched_keys"]))
    if missing:
        more = f", and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        names = ", ".join(missing[:NAMED]) + more
        raise ModelError(folder, f"{len(missing)} weights are missing or have another shape: {names}", LAYOUT)
    return module


def _auto(transformers: Any, model: VisionModel, config: Any) -> Any:
    """The class of transformers that makes networks of this kind."""
    classes = [getattr(transformers, name) for name in CLASSES[model.task]]
    fitting = [auto for auto in classes if type(config) in auto._model_mapping]
    # A network with two heads: the one that it was saved with.
    named = [auto for auto in fitting if model.architecture in _names(auto, config)]
    if not fitting:
        raise ValueError(f"a {model.architecture} is not among what this transformers has for {model.task}")
    return (named or fitting)[0]


def _names(auto: Any, config: Any) -> set[str]:
    found = auto._model_mapping[type(config)]
    classes = cast("tuple[type[Module], ...]", found if isinstance(found, tuple) else (found,))
    return {each.__name__ for each in classes}


def _tower(path: Path) -> Module:
    """The embedded model's classifier, with the directions of its text encoder."""
    import safetensors.torch

    from nodes.embedded.classifier import PictureTower

    def read(file: Path) -> dict[str, Tensor]:
        weights = cast("dict[str, Tensor]", cast(Any, safetensors.torch).load_file(file))
        return {name: tensor.float() for name, tensor in weights.items()}

    tower = PictureTower()
    tower.classifier.load_state_dict(read(path))
    tower.directions.copy_(read(DIRECTIONS)["directions"])
    return tower


@lru_cache(maxsize=8)
def _processors(folder: Path, identity: str, texts: bool) -> tuple[Any, Any]:
    with collector_paused():
        from transformers import AutoImageProcessor, AutoTokenizer
    try:
        images = cast(Any, AutoImageProcessor).from_pretrained(folder, backend="pil", **LOCAL)
        return images, cast(Any, AutoTokenizer).from_pretrained(folder, **LOCAL) if texts else None
    except DAMAGE as error:
        first = str(error).strip().partition("\n")[0]
        raise ModelError(folder, f"transformers cannot prepare its inputs ({first})", LAYOUT) from error


def image_processor(model: VisionModel) -> Any:
    """What resizes and normalises pictures for the network, as it was saved with it. Raises ModelError."""
    return _processors(model.weights.path, model.weights.identity, _reads(model))[0]


def tokenizer(model: VisionModel) -> Any:
    """What cuts texts for the network. Raises ModelError."""
    return _processors(model.weights.path, model.weights.identity, _reads(model))[1]


def _reads(model: VisionModel) -> bool:
    from nodes.vision.models import TEXTS

    return model.task in TEXTS
