"""Enlarge pictures with networks made for it: load one by name, and run it tile by tile."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from graph.cancellation import Progress
from graph.folders import MODEL_SUFFIXES, Folders, files_below, inside
from graph.identity import content_identity
from graph.node import node
from graph.values import INJECTED, Value
from nodes.model_errors import ModelError
from nodes.models import ModelPool
from nodes.pickles import permitted, readable
from nodes.precision import Precision
from nodes.values import Image, Weights
from nodes.weight_files import read_header

if TYPE_CHECKING:
    from torch import Tensor
    from torch import device as Device
    from torch.nn import Module

TILE, OVERLAP, SMALLEST_TILE = 512, 32, 128
PRECISION = Precision("fp32", False, "small differences between colours matter")
KNOWN = "ESRGAN's and Real-ESRGAN's networks can be used, with names of weights as in the first release or later."


@dataclass(frozen=True, slots=True)
class UpscaleModel(Value, kind="UPSCALE_MODEL"):
    """A reference to a network that makes pictures `scale` times as wide and high."""

    weights: Weights
    scale: int


class UpscaleModelSource:
    """The files in `models/upscale_models/`."""

    def names(self, folders: Folders) -> Sequence[str]:
        return files_below(folders.models("upscale_models"), readable(MODEL_SUFFIXES))

    def locate(self, folders: Folders, name: str) -> Path:
        path = inside(folders.models("upscale_models"), name)
        if not path.is_file():
            known = ", ".join(self.names(folders)[:20]) or "none"
            raise ModelError(path, f"there is no upscale model {name!r}", f"There are: {known}.")
        return permitted(path)


UPSCALE_MODELS = UpscaleModelSource()


@node("UpscaleModelLoader", category="loaders", title="Load Upscale Model", lane="io")
def load_upscale_model(model_name: Annotated[str, UPSCALE_MODELS], folders: Folders = INJECTED) -> UpscaleModel:
    """A network that enlarges pictures, by name; its weights are read when it is used."""
    from nodes.upscale_networks import identify

    path = UPSCALE_MODELS.locate(folders, model_name)
    header = read_header(path)
    architecture = identify(header)
    if architecture is None:
        some = ", ".join(sorted(header)[:3]) or "nothing"
        raise ModelError(path, f"this is no upscale model that is known here; it holds {some} …", KNOWN)
    return UpscaleModel(Weights(path, content_identity(path), path.stem), architecture.scale)


@node("ImageUpscaleWithModel", category="image/upscaling", title="Upscale Image (using Model)", lane="device")
def upscale_image_with_model(
    upscale_model: UpscaleModel, image: Image, models: ModelPool = INJECTED, progress: Progress = INJECTED
) -> Image:
    """Enlarge pictures with a network, in tiles that fade into one another."""
    import torch

    from nodes.maths.tiles import tiles

    network = models.network(upscale_model.weights, "upscale model", PRECISION, _loader(upscale_model))
    planes = image.rgb.movedim(-1, 1)

    def function(tile: "Tensor") -> "Tensor":
        with torch.no_grad():
            return cast("Tensor", network(tile.to(models.device, torch.float32))).cpu()

    total = planes.shape[0] * tiles(planes.shape[2], planes.shape[3], (TILE, TILE), OVERLAP)
    done = 0

    def report(_done: int, _total: int) -> None:
        nonlocal done
        done = min(done + 1, total)
        progress(done, total)

    enlarged = [_in_tiles_that_fit(function, part, report) for part in torch.split(planes, 1)]
    return Image(torch.cat(enlarged).clamp(0.0, 1.0).movedim(1, -1).contiguous())


def _in_tiles_that_fit(function: Any, planes: "Tensor", report: Any) -> "Tensor":
    """In tiles of half the side, and half of that, if a GPU has no room for larger ones."""
    import torch

    from nodes.maths.tiles import in_tiles

    side = TILE
    while True:
        try:
            return in_tiles(function, planes, (side, side), OVERLAP, report)
        except torch.OutOfMemoryError:
            if side <= SMALLEST_TILE:
                raise
            side //= 2


def _loader(model: UpscaleModel) -> Any:
    def load(device: "Device") -> "Module":
        import torch

        from nodes.open_weights import OpenWeights
        from nodes.upscale_networks import identify, renamed

        path, files = model.weights.path, OpenWeights()
        header = read_header(path)
        architecture = identify(header)
        if architecture is None:
            raise ModelError(path, "the file has changed since it was chosen", "Run the workflow again.")
        with torch.device("meta"):
            network = architecture.build()
        names = renamed(header)
        state = {names[name]: files.tensor(path, name).to(device, torch.float32) for name in header}
        network.load_state_dict(state, assign=True)
        return network.eval().requires_grad_(False)

    return load
