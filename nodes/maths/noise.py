"""Where randomness comes from: a seed, on the CPU, so that a picture depends on no device and on no interruption."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import cast

import torch
from torch import Tensor

from nodes.maths.model_sampling import Latents

Shape = tuple[int, ...]


def initial_noise(shape: Sequence[int], seed: int, batch_index: Sequence[int] | None = None) -> Latents:
    """Unit normal noise for a batch of latents, the same as torch.manual_seed(seed) and torch.randn(shape) give.

    `batch_index` names the samples of a larger batch that are wanted, one for each of the shape's first dimension.
    They are drawn one by one, which gives the numbers of a whole draw when a sample has a multiple of 16 of them.
    """
    generator = torch.Generator().manual_seed(seed)
    if batch_index is None:
        return torch.randn(tuple(shape), generator=generator)
    if len(batch_index) != shape[0] or min(batch_index, default=0) < 0:
        raise ValueError(
            f"batch_index {list(batch_index)} for {shape[0]} samples: expected one index, at least 0, for each"
        )
    samples = [torch.randn((1, *shape[1:]), generator=generator) for _ in range(max(batch_index, default=-1) + 1)]
    return torch.cat([samples[i] for i in batch_index]) if samples else torch.empty(tuple(shape))


@dataclass(frozen=True, slots=True)
class SequentialNoise:
    """Successive draws of one generator: what ancestral samplers add. Draw k depends on seed, shape and k alone.

    As in the reference the generator starts from the seed of the initial noise, so draw 0 equals that.
    """

    seed: int
    shape: Shape

    def __call__(self, draw: int, sigma: float, sigma_next: float) -> Tensor:
        generator = torch.Generator()
        state = _generator_states.get(self, draw)
        if state is None:
            generator.manual_seed(self.seed)
            for _ in range(draw):
                torch.randn(self.shape, generator=generator)
        else:
            generator.set_state(state)
        noise = torch.randn(self.shape, generator=generator)
        _generator_states.put(self, draw + 1, generator.get_state())
        return noise


class _GeneratorStates:
    """The states of a few generators between draws (5 kB each), so that step after step is not quadratic work."""

    def __init__(self, capacity: int) -> None:
        self._states: OrderedDict[tuple[SequentialNoise, int], Tensor] = OrderedDict()
        self._capacity = capacity
        self._lock = Lock()

    def get(self, noise: SequentialNoise, draw: int) -> Tensor | None:
        with self._lock:
            return self._states.get((noise, draw))

    def put(self, noise: SequentialNoise, draw: int, state: Tensor) -> None:
        with self._lock:
            self._states[noise, draw] = state
            while len(self._states) > self._capacity:
                self._states.popitem(last=False)


_generator_states = _GeneratorStates(capacity=256)


@dataclass(frozen=True, slots=True)
class BrownianNoise:
    """Increments of one Brownian path over sigma, at unit variance: what stochastic solvers add.

    The path is a binary tree of bridges over [sigma_min, sigma_max], Kidger et al. (2021). An increment is summed from
    the same nodes of the tree whatever was asked before, so its bits depend on these fields and the two sigmas alone.
    The tree rounds to 1e-6: raises ValueError for an increment that is shorter, or wholly outside the interval.
    """

    seed: int
    sigma_min: float
    sigma_max: float
    shape: Shape

    def __call__(self, draw: int, sigma: float, sigma_next: float) -> Tensor:
        # torchsde warns when a sigma lies outside its rounded interval, as sigma_max itself often does by 1e-7.
        tree = _tree(self)
        low, high = (min(max(end, tree.start), tree.end) for end in sorted((sigma, sigma_next)))
        if round(low, 6) == round(high, 6):
            raise ValueError(
                f"no Brownian increment from sigma {sigma} to {sigma_next} on [{self.sigma_min}, {self.sigma_max}]"
            )
        difference = (torch.tensor(sigma_next) - torch.tensor(sigma)).abs().sqrt()
        increment = tree.increment(low, high)
        return (increment if sigma < sigma_next else -increment) / difference


class _Tree:
    """torchsde's tree, with types, and a lock around its caches."""

    def __init__(self, path: BrownianNoise) -> None:
        import torchsde  # pyright: ignore[reportMissingTypeStubs]  # here, because few samplers need it

        self.start, self.end = round(path.sigma_min, 6), round(path.sigma_max, 6)
        self._increment = cast(
            Callable[[float, float], Tensor],
            torchsde.BrownianTree(path.sigma_min, torch.zeros(path.shape), path.sigma_max, entropy=path.seed),
        )
        self._lock = Lock()

    def increment(self, low: float, high: float) -> Tensor:
        with self._lock:
            return self._increment(low, high)


# Trees hold some forty tensors of the latent's size.
_tree = lru_cache(maxsize=2)(_Tree)
