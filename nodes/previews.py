"""Pictures of unfinished latents, small and quick. Importing this module imports neither torch nor pillow."""

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from nodes.values import Model

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8
    from PIL.Image import Image
    from torch import Tensor

    from nodes.maths.model_sampling import Latents
    from nodes.maths.previews import LinearMap

LARGEST_SIDE = 512
"""The longer side of a preview on its way to a client, in pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class LatentPreview:
    """A picture of a latent, one pixel for each of its own, sRGB. The array is read-only."""

    pixels: "UInt8[np.ndarray, 'height width 3']"

    def __post_init__(self) -> None:
        self.pixels.setflags(write=False)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.pixels.shape[1], self.pixels.shape[0]

    def png(self, side: int | None = None) -> bytes:
        """The picture as PNG: as it is, or with its longer side brought to `side` pixels."""
        return self._encoded("PNG", side)

    def jpeg(self, side: int = LARGEST_SIDE, quality: int = 95) -> bytes:
        """The picture as JPEG with its longer side brought to `side` pixels."""
        return self._encoded("JPEG", side, quality=quality)

    def _encoded(self, encoding: str, side: int | None, **options: int) -> bytes:
        file = BytesIO()
        self._image(side).save(file, encoding, **options)
        return file.getvalue()

    def _image(self, side: int | None) -> "Image":
        from PIL import Image

        image = Image.fromarray(self.pixels)
        if side is None:
            return image
        scale = side / max(self.size)
        width, height = (max(1, round(length * scale)) for length in self.size)
        return image.resize((width, height), Image.Resampling.BILINEAR)


def preview_latent(model: Model, samples: "Latents") -> LatentPreview:
    """A picture of the first of the samples, at the scale of the model's network and on any device.

    The colours are those of the model's own map, or of the published one for its kind of latent; grey without either.
    """
    from nodes.maths.previews import to_grey, to_rgb

    first = samples[:1].detach().float()
    linear = _linear_map(model)
    pixels = _bytes((to_grey(first) if linear is None else to_rgb(first, linear))[0])
    return LatentPreview(pixels)


def _linear_map(model: Model) -> "LinearMap | None":
    import torch

    from nodes.maths.previews import PUBLISHED, LinearMap

    known = model.preview
    if known is not None:
        return LinearMap(torch.tensor(known.weight), torch.tensor(known.bias))
    scale = model.latent_scale
    return None if isinstance(scale, tuple) else PUBLISHED.get((model.latent_channels, scale))


def _bytes(rgb: "Tensor") -> "UInt8[np.ndarray, 'height width 3']":
    """0…1, channels first, as bytes; what is not a number is black."""
    import torch

    scaled = rgb.nan_to_num(nan=0.0).mul(255.0).round().to(torch.uint8)
    return scaled.movedim(0, -1).contiguous().cpu().numpy()
