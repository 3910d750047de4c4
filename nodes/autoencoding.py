"""Pictures into latents and back, one at a time, in tiles where there is no room for a whole one."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from nodes.materialise import DTYPES
from nodes.maths.tiles import in_tiles
from nodes.memory import DECODING, ENCODING, Work
from nodes.models import ModelPool
from nodes.values import Vae

log = logging.getLogger("latentloom.models")

TILES = (2048, 1024, 512, 256)
"""Sides of tiles, in pixels of the picture."""


def encode_pixels(
    pool: ModelPool, vae: Vae, pixels: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, "batch channels h w"]:
    """The mode of the posterior of pictures in -1…1, unscaled."""
    module = cast(Any, pool.vae(vae))

    def encode(picture: Tensor) -> Tensor:
        return module.encode(picture, return_dict=False)[0].mode()

    return _one_by_one(pool, vae, encode, pixels, ENCODING)


def decode_latent(
    pool: ModelPool, vae: Vae, samples: Float[Tensor, "batch channels h w"]
) -> Float[Tensor, "batch 3 height width"]:
    """Pictures, about -1…1 (not clipped), of unscaled latents."""
    module = cast(Any, pool.vae(vae))

    def decode(latent: Tensor) -> Tensor:
        return module.decode(latent, return_dict=False)[0]

    return _one_by_one(pool, vae, decode, samples, DECODING)


def _one_by_one(pool: ModelPool, vae: Vae, function: Callable[[Tensor], Tensor], batch: Tensor, work: Work) -> Tensor:
    """A batch picture by picture: bounded memory, and no picture depends on its neighbours."""
    precision = pool.vae_precision(vae)
    layout = torch.channels_last if precision.channels_last else torch.contiguous_format
    tile = _tile(pool, vae, batch.shape[-2:], work)

    def computed(part: Tensor) -> Tensor:
        return function(part.contiguous(memory_format=layout)).float()

    with torch.no_grad():
        whole = batch.to(device=pool.device, dtype=DTYPES[precision.dtype])
        parts = [in_tiles(computed, part, (tile, tile), tile // 4) for part in torch.split(whole, 1)]
        return torch.cat(parts).contiguous()


def _tile(pool: ModelPool, vae: Vae, shape: Sequence[int], work: Work) -> int:
    """The side of tiles for a picture or a latent of this shape: the whole of it, if there is room.

    Otherwise the largest that fits once other networks have been dropped, and the smallest if none does.
    """
    channels = cast(int, cast(Any, pool.vae(vae)).config.block_out_channels[0])
    itemsize = DTYPES[pool.vae_precision(vae).dtype].itemsize
    scale = vae.factor if work is DECODING else 1

    def needed(height: int, width: int) -> int:
        return work.nbytes(height * width * scale**2, channels, itemsize)

    wanted = needed(*shape)
    said = f"{work.name} a picture of {shape[1] * scale} × {shape[0] * scale} pixels ({wanted / 1e6:,.0f} MB)"
    left = pool.make_room(wanted, vae.weights.identity, said)
    if left is None or wanted <= left:
        return max(shape)
    side = next((side for side in TILES if needed(side // scale, side // scale) <= left), TILES[-1])
    log.warning("%s is done in tiles of %d pixels, as %.0f MB are free", said, side, left / 1e6)
    return side // scale
