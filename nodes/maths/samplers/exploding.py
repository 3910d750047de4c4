"""Samplers of diffusion on rectified flows: a flow at sigma is a diffusion at sigma / (1 - sigma), scaled down.

x = (1 - sigma)·latent + sigma·noise is (1 - sigma) times a latent under that much more noise. What samplers compute
from the signal-to-noise ratio alone is the same there, so they take their step there; Kingma et al. (2021), section 5.
"""

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from nodes.maths.model_sampling import Latents
from nodes.maths.samplers.contract import Guided, NoiseSampler, State

Step = Callable[[State, Guided, float, float, NoiseSampler], State]


def exploded(sigma: float) -> float:
    """The noise level of a diffusion with the signal-to-noise ratio that a flow has at sigma, below 1."""
    return sigma / (1.0 - sigma)


def imploded(level: float) -> float:
    """The other way round."""
    return level / (1.0 + level)


def advance_exploded(
    step: Step, state: State, denoise: Guided, sigma: float, sigma_next: float, noise: NoiseSampler, highest: float
) -> State:
    """One step of a diffusion's sampler on a flow.

    Args:
        highest: below 1; where a flow starts at 1, which is infinitely much noise, the step starts here.
    """
    start = highest if sigma >= 1.0 else sigma

    def both(x: Latents, level: float) -> tuple[Latents, Latents]:
        return denoise.both(x * (1.0 - imploded(level)), imploded(level))

    def path(level: float, level_next: float) -> Tensor:
        return noise(imploded(level), imploded(level_next))

    ahead = tuple(exploded(level) for level in state.ahead)
    before = replace(state, x=state.x / (1.0 - start), ahead=ahead)
    after = step(before, Guided(both), exploded(start), exploded(sigma_next), path)
    return replace(after, x=after.x * (1.0 - sigma_next))
