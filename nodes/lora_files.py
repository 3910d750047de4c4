"""The tensors of a LoRA that stands for a difference of networks, tensor by tensor."""

from collections.abc import Iterator

from torch import Tensor

from nodes.adapter_names import canonical_shapes, original_names, text_part
from nodes.materialise import TEXT_ENCODER, UNET, weights_of
from nodes.maths.low_rank import low_rank
from nodes.model_errors import ModelError
from nodes.model_files import Saved
from nodes.network_layout import architecture_of
from nodes.values import Clip, Model, Weights
from nodes.weight_patches import Part
from nodes.weight_places import Shape

MATRICES, WHOLE = "F16", "F32"
"""Number formats: of matrices of low rank, and of whole differences, whose numbers may be too small for fewer bits."""


def lora_tensors(model: Model | None, clip: Clip | None, rank: int | None, *, biases: bool) -> Iterator[Saved]:
    """A LoRA's tensors for the differences that a model and text encoders are; without a rank, the differences.

    A U-Net's have their names in the original layout, text encoders' those of kohya's programs.
    """
    if model is not None:
        yield from _of_network(model.weights, "U-Net", rank, biases)
    for encoder in () if clip is None else clip.encoders:
        part = text_part(clip or encoder, encoder)
        if part is None:
            advice = "Take the difference of the other text encoders, loaded with CLIPLoader."
            raise ModelError(encoder.weights.path, "a LoRA for a T5 cannot be written", advice)
        yield from _of_network(encoder.weights, part, rank, biases)


def _of_network(weights: Weights, part: Part, rank: int | None, biases: bool) -> Iterator[Saved]:
    kind = UNET if part == "U-Net" else TEXT_ENCODER
    shapes = {name: shape for name, shape in canonical_shapes(weights, part).items() if _is_learned(name, shape)}
    original = original_names(shapes) if part == "U-Net" else {}
    transformer = part == "U-Net" and architecture_of(shapes) != "U-Net"
    read = weights_of(weights, kind, shapes)

    def take(name: str) -> Tensor:
        tensor = read(weights, name)
        assert tensor is not None  # its shape is that of the file
        return tensor

    for name, shape in shapes.items():
        module, _, end = name.rpartition(".")
        base = f"transformer.{module}" if transformer else _base(original.get(module, module), part)
        if len(shape) > 1 and rank is not None:
            yield from _matrices(base, shape, take(name), rank)
        elif len(shape) > 1 or biases:
            yield Saved(f"{base}.{'diff_b' if end == 'bias' else 'diff'}", shape, WHOLE, lambda name=name: take(name))


def _is_learned(name: str, shape: Shape) -> bool:
    """Not what has no module of its own, and not the vocabulary, whose rows belong to words."""
    return bool(shape) and name.endswith((".weight", ".bias")) and "embedding" not in name.rsplit(".", 2)[-2]


def _base(module: str, part: Part) -> str:
    flat = module.replace(".", "_")
    match part:
        case "U-Net":
            return f"diffusion_model.{module}"
        case "only text encoder":
            return f"lora_te_text_model_{flat}"
        case "first text encoder":
            return f"lora_te1_text_model_{flat}"
        case "second text encoder":
            return f"lora_te2_text_model_{flat}"


def _matrices(base: str, shape: Shape, change: Tensor, rank: int) -> Iterator[Saved]:
    """The two matrices, of which a convolution's are convolutions; none where nothing has changed."""
    if not change.any():
        return
    up, down = low_rank(change.flatten(1), rank)
    kernels = [1] * (len(shape) - 2)
    for name, tensor in (("up", up.reshape(*up.shape, *kernels)), ("down", down.reshape(len(down), *shape[1:]))):
        yield Saved(f"{base}.lora_{name}.weight", tuple(tensor.shape), MATRICES, lambda tensor=tensor: tensor.half())
