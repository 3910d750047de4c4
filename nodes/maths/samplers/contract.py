"""What a sampler is: one pure step between two noise levels; its caller owns the loop."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from nodes.maths.model_sampling import Latents

Denoiser = Callable[[Latents, float], Latents]  # (x, sigma) -> denoised
NoiseSampler = Callable[[float, float], Tensor]  # (sigma, sigma_next) -> unit normal noise of x's shape
NoiseSource = Callable[[int, float, float], Tensor]  # the same by number of the draw: pure
NoiseKind = Literal["none", "sequential", "brownian"]


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Where sampling stands between two steps; all that the next step depends on."""

    x: Latents  # the noisy latent at the current sigma
    history: tuple[Latents, ...] = ()  # what the sampler keeps of earlier steps, newest last, as much as it needs
    sigmas: tuple[float, ...] = ()  # the sigmas those were taken at, newest last, or other numbers it keeps
    draws: int = 0  # how often noise has been drawn
    denoised: Latents | None = None  # the last denoised prediction, for previews
    ahead: tuple[float, ...] = ()  # the sigmas after the next one, as far as the sampler looks ahead
    settings: tuple[tuple[str, float], ...] = ()  # what differs from the sampler's usual settings, by name


@dataclass(frozen=True, slots=True)
class Guided:
    """A denoiser that also tells the unconditional prediction it was guided away from.

    `both` maps (x, sigma) to the guided and the unconditional prediction, from one evaluation.
    """

    both: Callable[[Latents, float], tuple[Latents, Latents]]

    def __call__(self, x: Latents, sigma: float) -> Latents:
        return self.both(x, sigma)[0]


def as_guided(denoise: Denoiser | Guided) -> Guided:
    """The denoiser itself, or one whose prediction counts as the unconditional one as well."""
    if isinstance(denoise, Guided):
        return denoise

    def both(x: Latents, sigma: float) -> tuple[Latents, Latents]:
        denoised = denoise(x, sigma)
        return denoised, denoised

    return Guided(both)


# (state, denoise, sigma, sigma_next, noise) -> state; settings follow as keyword arguments with their usual values.
Sampler = Callable[..., State]
