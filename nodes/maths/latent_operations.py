"""Filters of latents that treat each pixel as a vector: its length apart from its direction."""

from jaxtyping import Float
from torch import Tensor

from nodes.maths.filters import gaussian, separable
from nodes.maths.model_sampling import Latents


def tone_mapped(latent: Latents, multiplier: float) -> Latents:
    """The longest vectors shortened: lengths l become l / (1 + l / top), Reinhard et al. (2002).

    The top lies five standard deviations above the mean of each sample's lengths, times `multiplier`; at 0 nothing is
    left.
    """
    lengths = _lengths(latent) + 1e-10
    spread, mean = (measure((1, 2, 3), keepdim=True) for measure in (lengths.std, lengths.mean))
    return latent * (top := (5.0 * spread + mean) * multiplier) / (top + lengths)


def sharpened(latent: Latents, radius: int, sigma: float, alpha: float) -> Latents:
    """What a Gaussian blur (sigma in radii) takes from the directions is added ten times `alpha`-fold."""
    lengths = _lengths(latent) + 1e-6
    directions = latent / lengths
    blurred = separable(directions, gaussian(radius, sigma))
    return lengths * (directions + 10.0 * alpha * (directions - blurred))


def _lengths(latent: Latents) -> Float[Tensor, "batch 1 height width"]:
    return latent.square().sum(1, keepdim=True).sqrt()
