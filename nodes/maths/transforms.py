"""Crop, turn, mirror, pad and join pictures and latents, and find the sizes they are to have."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nodes.maths.composite import with_same_channels
from nodes.maths.resize import Method, fit_batch, resize_picture

Pixels = Float[Tensor, "batch height width channels"]
Planes = Float[Tensor, "batch channels height width"]
Rotation = Literal["none", "90 degrees", "180 degrees", "270 degrees"]
FlipMethod = Literal["x-axis: vertically", "y-axis: horizontally"]
Direction = Literal["right", "down", "left", "up"]
Side = Literal["x", "-x", "y", "-y"]
Colour = Literal["white", "black", "red", "green", "blue"]

ROTATIONS: dict[Rotation, int] = {"none": 0, "90 degrees": 1, "180 degrees": 2, "270 degrees": 3}
FLIPPED_ROWS: dict[FlipMethod, bool] = {"x-axis: vertically": True, "y-axis: horizontally": False}
COLOURS: dict[Colour, tuple[float, float, float]] = {
    "white": (1, 1, 1),
    "black": (0, 0, 0),
    "red": (1, 0, 0),
    "green": (0, 1, 0),
    "blue": (0, 0, 1),
}

AXES = {"x": 3, "y": 2}
"""Of latents."""

MEBI = 1024 * 1024


def size_of_area(width: int, height: int, megapixels: float) -> tuple[int, int]:
    """The size of the same proportions that has so many pixels, in units of 1024 · 1024."""
    scale = math.sqrt(int(megapixels * MEBI) / (width * height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def size_of_longest(width: int, height: int, longest: int) -> tuple[int, int]:
    """The size of the same proportions whose longer side is `longest`."""
    if height > width:
        return max(1, round(width / height * longest)), longest
    return longest, max(1, round(height / width * longest))


def crop(pixels: Pixels, x: int, y: int, width: int, height: int) -> Pixels:
    """The part with its corner at x, y, as far as there is one; a corner beyond the end is the last pixel."""
    x, y = min(x, pixels.shape[2] - 1), min(y, pixels.shape[1] - 1)
    return pixels[:, y : y + height, x : x + width]


def crop_latent(samples: Planes, x: int, y: int, width: int, height: int) -> Planes:
    """As `crop`, in latent pixels; a corner nearer than eight to the end is moved back to there, as in ComfyUI."""
    x, y = max(0, min(x, samples.shape[3] - 8)), max(0, min(y, samples.shape[2] - 8))
    return samples[:, :, y : y + height, x : x + width]


def join_latents(first: Planes, second: Planes, side: Side) -> Planes:
    """Both along one axis, the second on that side; its batch is fitted to the first's, its other axes must agree."""
    second = fit_batch(second, first.shape[0])
    parts = (second, first) if side.startswith("-") else (first, second)
    return torch.cat(parts, dim=AXES[side[-1]])


def cut_latent(samples: Planes, axis: str, index: int, amount: int) -> Planes:
    """So many latent pixels along one axis; an index below 0 counts from the end."""
    length = samples.shape[AXES[axis]]
    start = min(index, length - 1) if index >= 0 else max(index + length, 0)
    return samples.narrow(AXES[axis], start, min(amount, length - start))


def rotate(planes: Planes, rotation: Rotation) -> Planes:
    """Turned clockwise."""
    return torch.rot90(planes, ROTATIONS[rotation], (3, 2))


def rotate_picture(pixels: Pixels, rotation: Rotation) -> Pixels:
    """`rotate` for a picture, whose channels come last."""
    return torch.rot90(pixels, ROTATIONS[rotation], (2, 1))


def flip(planes: Planes, method: FlipMethod) -> Planes:
    """Mirrored: about the x-axis top and bottom change places, about the y-axis left and right."""
    return planes.flip(2 if FLIPPED_ROWS[method] else 3)


def flip_picture(pixels: Pixels, method: FlipMethod) -> Pixels:
    """`flip` for a picture, whose channels come last."""
    return pixels.flip(1 if FLIPPED_ROWS[method] else 2)


def resize_and_pad(pixels: Pixels, width: int, height: int, value: float, method: Method) -> Pixels:
    """As large as fits into width x height, centred, with a border of one value."""
    scale = min(width / pixels.shape[2], height / pixels.shape[1])
    # Python's int (towards zero) is part of the picture.
    inner = max(1, int(pixels.shape[2] * scale)), max(1, int(pixels.shape[1] * scale))
    return _centred(resize_picture(pixels, *inner, method), width, height, value)


def _centred(pixels: Pixels, width: int, height: int, value: float = 0.0) -> Pixels:
    """On a canvas of one value; where the margins differ by one, the right and lower ones are larger."""
    across, down = width - pixels.shape[2], height - pixels.shape[1]
    sides = (0, 0, across // 2, across - across // 2, down // 2, down - down // 2)
    return F.pad(pixels, sides, value=value)


def stitch(first: Pixels, second: Pixels, direction: Direction, match_size: bool, gap: int, colour: Colour) -> Pixels:
    """Two pictures side by side, the second on the given side of the first, with a gap of one colour between.

    The shorter batch goes on with its last picture. With `match_size` the second is resized (lanczos) to the common
    side, otherwise the smaller one is centred on black. An odd gap becomes one wider.
    """
    axis = 2 if direction in ("left", "right") else 1
    batch = max(first.shape[0], second.shape[0])
    first, second = with_same_channels((_prolonged(first, batch), _prolonged(second, batch)))
    if match_size:
        second = _matched(second, first, axis)
    height, width = (max(first.shape[side], second.shape[side]) for side in (1, 2))
    parts = [_centred(part, *_common_size(part, width, height, axis)) for part in (first, second)]
    if direction in ("left", "up"):
        parts.reverse()
    if gap:
        parts.insert(1, _bar(parts[0], gap + gap % 2, axis, colour))
    return torch.cat(parts, dim=axis)


def _prolonged(pixels: Pixels, batch: int) -> Pixels:
    return torch.cat((pixels, pixels[-1:].expand(batch - pixels.shape[0], -1, -1, -1)))


def _matched(second: Pixels, first: Pixels, axis: int) -> Pixels:
    """The second with the first's height (side by side) or width (one above the other)."""
    proportions = second.shape[2] / second.shape[1]
    if axis == 2:
        height = first.shape[1]
        width = max(1, int(height * proportions))
    else:
        width = first.shape[2]
        height = max(1, int(width / proportions))
    return resize_picture(second, width, height, "lanczos")


def _common_size(part: Pixels, width: int, height: int, axis: int) -> tuple[int, int]:
    return (part.shape[2], height) if axis == 2 else (width, part.shape[1])


def _bar(beside: Pixels, thickness: int, axis: int, colour: Colour) -> Pixels:
    shape = list(beside.shape[:3])
    shape[axis] = thickness
    values = torch.tensor([*COLOURS[colour], 1.0], dtype=beside.dtype, device=beside.device)
    return values[: beside.shape[3]].expand(*shape, -1)


def one_colour(width: int, height: int, batch: int, colour: int) -> Float[Tensor, "batch height width 3"]:
    """Pictures of one colour, 0xRRGGBB."""
    channels = torch.tensor([colour >> 16 & 0xFF, colour >> 8 & 0xFF, colour & 0xFF], dtype=torch.float32)
    return (channels / 255.0).repeat(batch, height, width, 1)
