"""Take samplers step by step, under a stand-in for a network."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from nodes.maths.model_sampling import DiscreteSampling
from nodes.maths.noise import BrownianNoise, SequentialNoise
from nodes.maths.samplers import SAMPLERS, Denoiser, Guided, NoiseSource, State, advance, settings_for

SHAPE = (2, 4, 8, 8)


def denoise(x: Tensor, sigma: float) -> Tensor:
    """A smooth, nonlinear stand-in for a network: the mean of data at -1 and 1, each spread by a half."""
    return (0.25 * x + sigma**2 * torch.tanh(x / (0.25 + sigma**2))) / (0.25 + sigma**2)


def no_noise(draw: int, sigma: float, sigma_next: float) -> Tensor:
    return torch.zeros(SHAPE)


def draws(seed: int = 5) -> SequentialNoise:
    return SequentialNoise(seed, SHAPE)


def full_noise(name: str, sigmas: Sequence[float]) -> NoiseSource:
    """The noise that the sampler is given in a run over these levels."""
    match SAMPLERS[name].noise:
        case "brownian":
            return BrownianNoise(5, min(filter(None, sigmas)), sigmas[0], SHAPE)
        case "sequential" | "none":
            return draws()


def floats(sigmas: Tensor) -> list[float]:
    return [sigma.item() for sigma in sigmas]


def start(sigma: float) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)) * sigma


def begin(name: str, x: Tensor, sigmas: Sequence[float], settings: Mapping[str, float] | None = None) -> State:
    """The state before the first step, told of the schedule what the sampler has to know."""
    told = dict(settings_for(name, DiscreteSampling(), sigmas)) | dict(settings or {})
    return State(x, settings=tuple(told.items()))


def states(
    name: str,
    x: Tensor,
    sigmas: Sequence[float],
    noise: NoiseSource = no_noise,
    denoise: Denoiser | Guided = denoise,
    settings: Mapping[str, float] | None = None,
    beyond: Sequence[float] = (),
) -> list[State]:
    """Where the sampler stands after each step; the schedule goes on `beyond`, but these steps are not taken."""
    state, visited = begin(name, x, sigmas, settings), list[State]()
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        state = replace(state, ahead=(*sigmas[i + 2 :], *beyond))
        visited.append(state := advance(name, state, denoise, sigma, sigma_next, noise))
    return visited
