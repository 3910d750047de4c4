"""The autoencoder tile by tile, for pictures that do not fit into memory as a whole."""

from typing import TYPE_CHECKING, Annotated

from graph.cancellation import Progress
from graph.literals import Between
from graph.node import node
from graph.values import INJECTED
from nodes.latents import refuse_tiny, refuse_wrong_vae
from nodes.models import ModelPool
from nodes.values import Image, Latent, Vae

if TYPE_CHECKING:
    from torch import Tensor

DecodeTile = Annotated[int, Between(64, 4096, "Pixels of a tile's side; less needs less memory.", step=32)]
EncodeTile = Annotated[int, Between(64, 4096, "Pixels of a tile's side; less needs less memory.", step=64)]
Overlap = Annotated[int, Between(0, 4096, "How far tiles fade into one another; a quarter at most.", step=32)]
Frames = Annotated[int, Between(8, 4096, "For videos; without effect on pictures.", step=4)]
FrameOverlap = Annotated[int, Between(4, 4096, "For videos; without effect on pictures.", step=4)]


@node("VAEDecodeTiled", category="_for_testing", title="VAE Decode (Tiled)", lane="device")
def decode_tiled(
    samples: Latent,
    vae: Vae,
    tile_size: DecodeTile = 512,
    overlap: Overlap = 64,
    temporal_size: Frames = 64,
    temporal_overlap: FrameOverlap = 8,
    models: ModelPool = INJECTED,
    progress: Progress = INJECTED,
) -> Image:
    """From latents to pictures in tiles, which takes longer and needs less memory; colours may differ a little."""
    from nodes.maths.tiles import in_three_tilings

    refuse_wrong_vae(samples, vae)

    def function(tile: "Tensor") -> "Tensor":
        return models.decode_latent(vae, tile).cpu()

    tile, faded = _in_latent_pixels(tile_size, overlap, vae)
    pixels = in_three_tilings(function, samples.samples, tile, faded, progress)
    return Image(((pixels + 1.0) / 2.0).clamp(0.0, 1.0).movedim(1, -1).contiguous())


@node("VAEEncodeTiled", category="_for_testing", title="VAE Encode (Tiled)", lane="device")
def encode_tiled(
    pixels: Image,
    vae: Vae,
    tile_size: EncodeTile = 512,
    overlap: Overlap = 64,
    temporal_size: Frames = 64,
    temporal_overlap: FrameOverlap = 8,
    models: ModelPool = INJECTED,
    progress: Progress = INJECTED,
) -> Latent:
    """From pictures to latents in tiles, which takes longer and needs less memory."""
    from nodes.maths.resize import crop_to_multiple
    from nodes.maths.tiles import in_three_tilings

    refuse_tiny(pixels, vae)
    cut = crop_to_multiple(pixels.rgb, vae.factor, (1, 2)).movedim(-1, 1) * 2.0 - 1.0

    def function(tile: "Tensor") -> "Tensor":
        return models.encode_pixels(vae, tile).cpu()

    tile, faded = (length * vae.factor for length in _in_latent_pixels(tile_size, overlap, vae))
    return Latent(in_three_tilings(function, cut, tile, faded, progress))


def _in_latent_pixels(tile_size: int, overlap: int, vae: Vae) -> tuple[int, int]:
    """A tile's side, which can be halved, and the overlap, which is a quarter of it at most."""
    tile = max(tile_size // vae.factor // 2, 1) * 2
    return tile, min(overlap, tile_size // 4) // vae.factor
