"""Change the size of pictures, masks and latents, pixel for pixel as ComfyUI does."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

Method = Literal["nearest-exact", "bilinear", "area", "bicubic", "lanczos", "bislerp"]
Crop = Literal["disabled", "center"]

# Height before width, as torch has it.
Resizer = Callable[[Float[Tensor, "batch channels h w"], int, int], Float[Tensor, "batch channels height width"]]


def common_upscale(
    samples: Float[Tensor, "batch channels h w"], width: int, height: int, method: Method, crop: Crop = "disabled"
) -> Float[Tensor, "batch channels height width"]:
    """Resize to width x height; crop "center" first cuts the longer axis down to the new proportions."""
    if crop == "center":
        samples = _crop_to_proportions(samples, width, height)
    return RESIZERS[method](samples, height, width)


def resize_picture(
    pixels: Float[Tensor, "batch h w channels"], width: int, height: int, method: Method, crop: Crop = "disabled"
) -> Float[Tensor, "batch height width channels"]:
    """`common_upscale` for a picture, whose channels come last."""
    return common_upscale(pixels.movedim(-1, 1), width, height, method, crop).movedim(1, -1)


def resize_mask(
    mask: Float[Tensor, "*batch h w"], width: int, height: int
) -> Float[Tensor, "masks 1 {height} {width}"]:
    """A mask of any leading shape, as [masks, 1, height, width], bilinear as everywhere a mask meets a picture."""
    return F.interpolate(mask.reshape(-1, 1, *mask.shape[-2:]), size=(height, width), mode="bilinear")


def fill_in_size(width: int, height: int, old_width: int, old_height: int, least: int = 1) -> tuple[int, int]:
    """The (width, height) meant: a side of 0 follows the proportions, both 0 keep the size; never below `least`."""
    if width == 0 and height == 0:
        return old_width, old_height
    if width == 0:
        height = max(least, height)
        return max(least, round(old_width * height / old_height)), height
    if height == 0:
        width = max(least, width)
        return width, max(least, round(old_height * width / old_width))
    return max(least, width), max(least, height)


def upscale_latent(
    samples: Float[Tensor, "batch channels h w"], width: int, height: int, method: Method, crop: Crop = "disabled"
) -> Float[Tensor, "batch channels height width"]:
    """Resize latents to a size given in picture pixels, at least 64; a side of 0 follows the proportions."""
    if width == 0 and height == 0:
        return samples
    width, height = fill_in_size(width, height, samples.shape[-1], samples.shape[-2], least=64)
    return common_upscale(samples, width // 8, height // 8, method, crop)


def crop_to_multiple(tensor: Tensor, factor: int, axes: tuple[int, int]) -> Tensor:
    """Cut both axes down to multiples of `factor`, centred."""
    for axis in axes:
        rest = tensor.shape[axis] % factor
        tensor = tensor.narrow(axis, rest // 2, tensor.shape[axis] - rest)
    return tensor


def fit_batch(tensor: Float[Tensor, "some ..."], batch: int) -> Float[Tensor, "batch ..."]:
    """Exactly `batch` samples: repeated from the start while there are too few, cut off when too many."""
    copies = -(-batch // tensor.shape[0])
    return tensor.repeat(copies, *[1] * (tensor.ndim - 1))[:batch] if copies > 1 else tensor[:batch]


def _crop_to_proportions(
    samples: Float[Tensor, "batch channels h w"], width: int, height: int
) -> Float[Tensor, "batch channels h2 w2"]:
    old_height, old_width = samples.shape[-2:]
    old, new = old_width / old_height, width / height
    x = _margin(old_width, new / old) if old > new else 0
    y = _margin(old_height, old / new) if old < new else 0
    return samples[..., y : old_height - y, x : old_width - x]


def _margin(length: int, kept: float) -> int:
    # Python's round (half to even) is part of the picture. At least one pixel stays, however extreme the proportions.
    return min(round((length - length * kept) / 2), (length - 1) // 2)


def _interpolate(
    samples: Float[Tensor, "batch channels h w"], height: int, width: int, *, mode: str
) -> Float[Tensor, "batch channels height width"]:
    return F.interpolate(samples, size=(height, width), mode=mode)


def lanczos(
    samples: Float[Tensor, "batch channels h w"], height: int, width: int
) -> Float[Tensor, "batch channels height width"]:
    """Lanczos by pillow: values pass through 8 bits, truncated, so the result is quantised."""
    planes = (255.0 * samples.detach().cpu()).clamp(0, 255).to(torch.uint8).flatten(0, 1).numpy()
    resized = [np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.LANCZOS)) for plane in planes]
    stacked = torch.as_tensor(np.stack(resized)).to(samples.device, torch.float32) / 255.0
    return stacked.reshape(*samples.shape[:2], height, width)


def bislerp(
    samples: Float[Tensor, "batch channels h w"], height: int, width: int
) -> Float[Tensor, "batch channels height width"]:
    """Bilinear in direction and length separately (spherical), first along the width and then along the height."""
    wide = _slerp_last_axis(samples.float(), width)
    return _slerp_last_axis(wide.mT, height).mT.contiguous().to(samples.dtype)


def _slerp_last_axis(samples: Float[Tensor, "batch channels h w"], length: int) -> Float[Tensor, "batch channels h l"]:
    below, above, ratio = _neighbours(samples.shape[-1], length, samples.device)
    return _slerp(samples[..., below], samples[..., above], ratio)


def _neighbours(
    old: int, new: int, device: torch.device
) -> tuple[Int[Tensor, " new"], Int[Tensor, " new"], Float[Tensor, " new"]]:
    """For each new position the old ones below and above it, and how far it lies towards the one above."""
    positions = torch.arange(old, dtype=torch.float32, device=device).reshape(1, 1, 1, -1)
    positions = F.interpolate(positions, size=(1, new), mode="bilinear").flatten()
    below = positions.long()
    return below, (below + 1).clamp(max=old - 1), positions - below


def _slerp(
    a: Float[Tensor, "batch channels h w"], b: Float[Tensor, "batch channels h w"], ratio: Float[Tensor, " w"]
) -> Float[Tensor, "batch channels h w"]:
    """From a to b over the channels: directions along the arc, lengths linearly."""
    length_a, length_b = (end.square().sum(1, keepdim=True).sqrt() for end in (a, b))
    unit_a = torch.where(length_a == 0, 0.0, a / length_a)
    unit_b = torch.where(length_b == 0, 0.0, b / length_b)
    dot = (unit_a * unit_b).sum(1, keepdim=True)
    omega = dot.acos()
    arc = ((1 - ratio) * omega).sin() / omega.sin() * unit_a + (ratio * omega).sin() / omega.sin() * unit_b
    arc = arc * (length_a * (1 - ratio) + length_b * ratio)
    # No arc is defined between equal or opposite directions, and acos may be NaN there.
    arc = torch.where(dot > 1 - 1e-5, a, arc)
    return torch.where(dot < 1e-5 - 1, a * (1 - ratio) + b * ratio, arc)


RESIZERS: dict[Method, Resizer] = {
    "nearest-exact": partial(_interpolate, mode="nearest-exact"),
    "bilinear": partial(_interpolate, mode="bilinear"),
    "area": partial(_interpolate, mode="area"),
    "bicubic": partial(_interpolate, mode="bicubic"),
    "lanczos": lanczos,
    "bislerp": bislerp,
}
