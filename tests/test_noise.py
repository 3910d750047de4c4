"""Noise as torch, the reference and torchsde draw it, and pure in every draw."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from nodes.maths.noise import BrownianNoise, SequentialNoise, initial_noise

SHAPE = (2, 4, 8, 8)
LEVELS = [14.614641189575195, 7.25, 3.1415926, 1.0, 0.3333333, 0.0291671]
PATH = BrownianNoise(42, LEVELS[-1], LEVELS[0], SHAPE)


@pytest.mark.parametrize("seed", [0, 1, 42, 2**32 + 7, 2**63, 2**64 - 1])
@pytest.mark.parametrize("shape", [SHAPE, (1, 4, 9, 9), (3, 3, 5, 7)])
def test_initial_noise_is_the_global_generators(seed: int, shape: tuple[int, ...]) -> None:
    before = torch.get_rng_state()
    torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]  # torch types it bare
    expected = torch.randn(shape)
    torch.set_rng_state(before)
    assert torch.equal(initial_noise(shape, seed), expected)


def test_initial_noise_keeps_its_values() -> None:
    noise = initial_noise((1, 4, 8, 8), 42)
    expected = [1.9269152879714966, 1.4872840642929077, 0.9007171988487244, -2.1055209636688232]
    assert [value.item() for value in noise.flatten()[:4]] == expected


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    initial_noise(SHAPE, 3)
    SequentialNoise(3, SHAPE)(2, 1.0, 0.5)
    PATH(0, LEVELS[0], LEVELS[1])
    assert torch.equal(torch.get_rng_state(), before)


def test_batch_index_picks_samples_of_a_larger_batch() -> None:
    whole = initial_noise((5, 4, 8, 8), 42)
    picked = initial_noise((4, 4, 8, 8), 42, batch_index=[3, 0, 3, 4])
    assert torch.equal(picked, whole[[3, 0, 3, 4]])


def test_batch_index_draws_sample_by_sample() -> None:
    """324 numbers are no multiple of 16: torch's vectorised draw of a whole batch gives others, as in the reference."""
    generator = torch.Generator().manual_seed(42)
    singly = torch.cat([torch.randn(1, 4, 9, 9, generator=generator) for _ in range(3)])
    assert torch.equal(initial_noise((2, 4, 9, 9), 42, batch_index=[1, 2]), singly[1:])


def test_a_batch_index_that_does_not_fit_is_refused() -> None:
    for wrong in ([0], [0, -1]):
        with pytest.raises(ValueError, match="expected one index, at least 0, for each"):
            initial_noise(SHAPE, 1, batch_index=wrong)


def successive(seed: int, count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(SHAPE, generator=generator) for _ in range(count)]


def test_sequential_noise_is_successive_draws_that_start_with_the_initial_noise() -> None:
    noise = SequentialNoise(7, SHAPE)
    assert all(torch.equal(noise(k, 1.0, 0.5), drawn) for k, drawn in enumerate(successive(7, 10)))
    assert torch.equal(noise(0, 1.0, 0.5), initial_noise(SHAPE, 7))


def test_sequential_noise_does_not_depend_on_what_was_drawn_before() -> None:
    expected = successive(8, 10)
    for k in (9, 3, 3, 0, 8, 9, 1):
        assert torch.equal(SequentialNoise(8, SHAPE)(k, 1.0, 0.5), expected[k])


def test_sequential_noise_from_many_threads() -> None:
    expected = {seed: successive(seed, 20) for seed in range(4)}
    jobs = [(seed, k) for k in range(20) for seed in range(4)] * 3

    def same(job: tuple[int, int]) -> bool:
        seed, k = job
        return torch.equal(SequentialNoise(seed, SHAPE)(k, 1.0, 0.5), expected[seed][k])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(same, jobs))


@pytest.mark.filterwarnings("ignore:Should have tb<=t1:UserWarning")
def test_brownian_noise_is_that_of_k_diffusion_as_kept_in_diffusers() -> None:
    from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler

    theirs = BrownianTreeNoiseSampler(torch.zeros(SHAPE), LEVELS[-1], LEVELS[0], 42)
    for sigma, sigma_next in [*pairwise(LEVELS), (0.5, 2.0)]:
        assert torch.equal(PATH(0, sigma, sigma_next), theirs(sigma, sigma_next))


def test_brownian_noise_does_not_depend_on_what_was_asked_before() -> None:
    """A tree asked in order, one asked backwards, and one asked once give the same bits; the other paths evict it."""
    steps = list(pairwise(LEVELS))
    in_order = [PATH(0, *step) for step in steps]
    for step, expected in reversed(list(zip(steps, in_order, strict=True))):
        for seed in range(3):
            BrownianNoise(seed, 0.1, 1.0, SHAPE)(0, 1.0, 0.5)
        assert torch.equal(PATH(0, *step), expected)
        assert torch.equal(PATH(0, step[1], step[0]), -expected)


def test_brownian_noise_from_many_threads() -> None:
    steps = list(pairwise(LEVELS))
    expected = [PATH(0, *step) for step in steps]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(PATH, [0] * 100, LEVELS[:-1] * 20, LEVELS[1:] * 20))
    assert all(map(torch.equal, answers, expected * 20))


def test_brownian_increments_add_up_and_have_unit_variance() -> None:
    path = BrownianNoise(3, 0.1, 10.0, (1, 4, 64, 64))
    first, second, whole = path(0, 10.0, 4.0), path(0, 4.0, 1.0), path(0, 10.0, 1.0)
    torch.testing.assert_close(first * 6**0.5 + second * 3**0.5, whole * 9**0.5, rtol=1e-4, atol=1e-4)
    assert [noise.std().item() for noise in (first, second, whole)] == pytest.approx([1.0] * 3, abs=0.03)
    assert (first * second).mean().item() == pytest.approx(0.0, abs=0.03)


@pytest.mark.parametrize("step", [(1.0, 1.0), (1.0, 1.0 + 1e-8), (0.02, 0.01), (30.0, 20.0)])
def test_an_increment_without_length_is_refused(step: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="no Brownian increment"):
        PATH(0, *step)


def test_only_a_brownian_path_imports_torchsde() -> None:
    program = "import sys; from nodes import trajectory; assert 'torchsde' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
