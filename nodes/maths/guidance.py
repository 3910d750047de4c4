"""What steers a denoiser: guidance and kept areas."""

import math
from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from nodes.maths.model_sampling import Latents, ModelSampling
from nodes.maths.samplers import Denoiser, Guided, as_guided

Mask = Float[Tensor, "masks 1 height width"] | Float[Tensor, "masks height width"] | Float[Tensor, "height width"]
MaskAt = Callable[[float], Latents]  # sigma -> mask

# Keeps a pixel that no conditioning reaches at zero instead of 0 / 0.
NO_WEIGHT = 1e-37


def needs_uncond(scale: float) -> bool:
    """Whether guidance at this scale looks at the unconditional prediction at all."""
    return not math.isclose(scale, 1.0)


def guide(cond: Latents, uncond: Latents, scale: float) -> Latents:
    """Away from the unconditional prediction, past the conditional one, Ho and Salimans (2021)."""
    return uncond + (cond - uncond) * scale


def prepare_mask(mask: Mask, shape: Sequence[int]) -> Latents:
    """A mask of any size as a weight per latent element: bilinear, repeated over channels and batch, still soft."""
    batch, channels, height, width = shape
    if mask.ndim < 2 or 0 in mask.shape:
        raise ValueError(f"a mask of shape {tuple(mask.shape)}: expected at least height and width, none of them 0")
    planes = mask.reshape(-1, 1, mask.shape[-2], mask.shape[-1]).float()
    resized = interpolate(planes, size=(height, width), mode="bilinear")
    repeats = -(-batch // len(resized))
    return resized.repeat(repeats, channels, 1, 1)[:batch]


def blend(new: Latents, old: Latents, mask: Latents) -> Latents:
    """`new` where the mask is 1, `old` where it is 0, both in proportion between."""
    return new * mask + old * (1.0 - mask)


def open_so_far(mask: Latents, left: float, strength: float = 1.0) -> Latents:
    """A mask by time, Levin and Fried (2023): 1 where it is at least the share of the sampling that is left.

    Args:
        strength: of that against the mask itself; 0 counts as 1.
    """
    opened = (mask >= left).to(mask.dtype)
    return strength * opened + (1.0 - strength) * mask if 0.0 < strength < 1.0 else opened


def keep_area(
    denoise: Denoiser | Guided, mask: Latents | MaskAt, noise: Latents, latent: Latents, sampling: ModelSampling
) -> Guided:
    """Inpainting by a noise mask, Lugmayr et al. (2022): where it is 0 the denoiser sees and returns the given latent.

    The same initial noise stands behind every step. `mask` comes from `prepare_mask`, or depends on sigma; `latent` is
    in the model's scale. The unconditional prediction stays what it was.
    """
    guided = as_guided(denoise)
    mask_at: MaskAt = mask if callable(mask) else lambda sigma: mask

    def kept(x: Latents, sigma: float) -> tuple[Latents, Latents]:
        known = sampling.noise_scaling(sigma, noise, latent)
        denoised, uncond = guided.both(blend(x, known, mask_at(sigma)), sigma)
        return blend(denoised, latent, mask_at(sigma)), uncond

    return Guided(kept)
