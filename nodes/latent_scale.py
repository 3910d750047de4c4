"""Latents as a VAE gives them, and at the scale that a network was trained on. Imports no torch."""

from typing import TYPE_CHECKING, Protocol

from nodes.values import Scale

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    Latents = Float[Tensor, "batch channels height width"]

PLAYGROUND_SHIFT = (-1.6574, 1.886, -1.383, 2.5155)
PLAYGROUND_SCALE = tuple(0.5 / spread for spread in (8.4927, 5.9022, 6.5498, 5.2299))
"""Playground v2.5 has a mean and a spread for each channel of SDXL's latents, of which it takes half."""

PLAYGROUND_LEVELS = (0.002, 80.0)
"""The noise that it knows, from the lowest level to the highest."""
EDM_SIGMA_DATA = 0.5
"""The spread of latents that networks are preconditioned for, Karras et al. (2022)."""


class Scaled(Protocol):
    """What says how a network takes latents."""

    @property
    def latent_scale(self) -> Scale: ...
    @property
    def latent_shift(self) -> Scale: ...


def for_network(of: Scaled, latent: "Latents") -> "Latents":
    """A VAE's latents at the scale of a network."""
    return (latent - _along(of.latent_shift, latent)) * _along(of.latent_scale, latent)


def for_vae(of: Scaled, x: "Latents") -> "Latents":
    """A network's latents as its VAE gives and takes them."""
    return x / _along(of.latent_scale, x) + _along(of.latent_shift, x)


def _along(numbers: Scale, like: "Latents") -> "float | Tensor":
    """One number for all, or one along each channel."""
    return like.new_tensor(numbers)[:, None, None] if isinstance(numbers, tuple) else numbers
