"""What adapters make of a weight: LoRA, LoCon, LoHa, LoKr, GLoRA, the direction and length of DoRA, and OFT and BOFT.

An adapter of a weight is its tensors by their roles, named as LyCORIS names them; LoRA's are `up`, `down` and `mid`.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from nodes.maths.rotations import turned

Parts = Mapping[str, Tensor]


def adapted(weight: Float[Tensor, "rows ..."], parts: Parts, strength: float) -> Float[Tensor, "rows ..."]:
    """A float32 weight with an adapter of some strength; the weight itself stays as it is."""
    if "diff" in parts:
        return weight + strength * parts["diff"].reshape(weight.shape)
    if "oft_blocks" in parts:
        return turned(weight, parts, strength)
    change = scale_of(parts) * difference(parts).reshape(weight.shape)
    if "a1" in parts:  # Chavan et al. 2023: of the weight itself, too
        inputs = weight.transpose(1, -1) @ parts["a1"].flatten(1) @ parts["a2"].flatten(1)
        change = change + scale_of(parts) * inputs.transpose(1, -1)
    if "dora_scale" in parts:
        change = decomposed(weight, change, parts["dora_scale"]) - weight
    return weight + strength * change


def difference(parts: Parts) -> Float[Tensor, "rows ..."]:
    """What an adapter adds, before it is scaled. Its numbers are in the weight's order; its shape may be flatter."""
    for names in (("up", "down", "mid"), ("b1", "b2", "bm")):
        if names[0] in parts:
            return _product(*map(parts.get, names))
    if "hada_w1_a" in parts:  # Hyeon-Woo et al. 2022
        return _factor(parts, "hada_w1", "hada_t1") * _factor(parts, "hada_w2", "hada_t2")
    first, second = _factor(parts, "lokr_w1", None), _factor(parts, "lokr_w2", "lokr_t2")
    return torch.kron(first.reshape(*first.shape, *[1] * (second.ndim - first.ndim)), second)


def _product(up: Tensor | None, down: Tensor | None, mid: Tensor | None) -> Tensor:
    """Of two matrices, or of two around kernels."""
    assert up is not None and down is not None  # adapters are whole
    up = up.flatten(1)
    if mid is not None:
        return torch.einsum("oi,ijkl,jc->ockl", up, mid, down.flatten(1))
    return (up @ down.flatten(1)).reshape(len(up), *down.shape[1:])


def _factor(parts: Parts, name: str, core: str | None) -> Tensor:
    """One factor: given whole, as a product, or as a product around a core of convolution kernels (Tucker)."""
    if name in parts:
        return parts[name]
    a, b = parts[f"{name}_a"], parts[f"{name}_b"]
    if core is not None and core in parts:
        return torch.einsum("ijkl,ip,jr->prkl", parts[core], a, b)
    return a @ b


def scale_of(parts: Parts) -> float:
    """alpha over the rank; 1 where no alpha is stated, or nothing has a rank."""
    rank = next(
        (len(parts[name]) for name in ("down", "b2", "hada_w1_b", "lokr_w2_b", "lokr_w1_b") if name in parts), None
    )
    return float(parts["alpha"]) / rank if "alpha" in parts and rank else 1.0


def decomposed(
    weight: Float[Tensor, "rows ..."], change: Float[Tensor, "rows ..."], length: Tensor
) -> Float[Tensor, "rows ..."]:
    """The direction of the changed weight at a length that was learned (Liu et al. 2024).

    `length` has a number for each output, or, as LyCORIS has it by default, for each input.
    """
    moved = weight + change
    along_inputs = length.ndim > 1 and len(length) == 1 and len(weight) != 1
    kept = 1 if along_inputs else 0
    sizes = [1] * weight.ndim
    sizes[kept] = weight.shape[kept]
    norm = moved.transpose(0, kept).flatten(1).square().sum(1).sqrt().reshape(sizes)
    return moved * (length.reshape(sizes) / (norm + torch.finfo(torch.float32).eps))
