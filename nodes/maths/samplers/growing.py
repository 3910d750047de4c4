"""Latents that grow while they are sampled: from their size to a multiple of it, by as much after every step."""

from dataclasses import dataclass

from nodes.maths.model_sampling import Latents
from nodes.maths.resize import RESIZERS, Method

METHODS: tuple[Method, ...] = ("bislerp", "nearest-exact", "bilinear", "area", "bicubic")
"""The number of a method, as a setting, is its place here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """From `height` x `width`, in `scale_steps` of the schedule's `steps` (-1: in half), `scale_ratio` times."""

    scale_ratio: float
    steps: float
    height: float
    width: float
    scale_steps: float = -1.0
    upscale_method: float = 0.0

    def size(self, step: int) -> tuple[int, int]:
        """Height and width after so many steps."""
        half = (self.steps + 1) // 2
        growing = min(half if self.scale_steps < 0 else self.scale_steps, self.steps)
        factor = 1 + (self.scale_ratio - 1) * min(step / growing, 1.0) if growing else 1.0
        return max(1, round(self.height * factor)), max(1, round(self.width * factor))

    def grown(self, x: Latents, step: int) -> Latents:
        """A latent at its size after so many steps."""
        size = self.size(step)
        return x if x.shape[-2:] == size else RESIZERS[METHODS[int(self.upscale_method)]](x, *size)
