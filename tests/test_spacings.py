"""Noise levels from formulas: each undone by the inverse of its own function, or held against scipy and diffusers."""

import importlib
import math
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from nodes.maths import spacings
from nodes.maths.model_sampling import DiscreteSampling

SD1 = DiscreteSampling()
LOW, HIGH = 0.03, 15.0


def assert_even(values: Tensor, first: float, last: float, tolerance: float = 1e-5) -> None:
    expected = torch.linspace(first, last, len(values), dtype=torch.float64)
    torch.testing.assert_close(values.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rho", [0.5, 1.0, 7.0, 20.0])
def test_karras_is_even_in_the_root(rho: float) -> None:
    sigmas = spacings.karras(20, LOW, HIGH, rho)
    assert sigmas[-1].item() == 0
    assert_even(sigmas[:-1].double() ** (1 / rho), HIGH ** (1 / rho), LOW ** (1 / rho))


def test_exponential_is_even_in_the_logarithm() -> None:
    sigmas = spacings.exponential(20, LOW, HIGH)
    assert sigmas[-1].item() == 0
    assert_even(sigmas[:-1].log(), math.log(HIGH), math.log(LOW))


@pytest.mark.parametrize("rho", [0.5, 1.0, 3.0])
def test_polyexponential_is_even_in_the_root_of_the_way_in_the_logarithm(rho: float) -> None:
    sigmas = spacings.polyexponential(20, LOW, HIGH, rho)
    way = (sigmas[:-1].double().log() - math.log(LOW)) / math.log(HIGH / LOW)
    assert_even(way[:-1] ** (1 / rho), 1.0, 1 / 19)
    assert sigmas[-2].item() == pytest.approx(LOW)
    torch.testing.assert_close(spacings.polyexponential(20, LOW, HIGH), spacings.exponential(20, LOW, HIGH))


def test_variance_preserving_is_even_in_the_time_whose_integral_of_beta_it_is() -> None:
    """log(1 + sigma²) is the integral of beta_min + beta_d·t."""
    beta_d, beta_min = 19.9, 0.1
    sigmas = spacings.variance_preserving(20, beta_d, beta_min, 0.01).double()
    integral = (sigmas[:-1] ** 2).log1p()
    time = (-beta_min + (beta_min**2 + 2 * beta_d * integral).sqrt()) / beta_d
    assert_even(time, 1.0, 0.01)


def test_laplace_takes_the_quantiles_of_scipys_distribution() -> None:
    stats: Any = importlib.import_module("scipy.stats")
    sigmas = spacings.laplace(21, LOW, HIGH, mu=0.5, beta=0.4)
    expected = stats.laplace.ppf([1 - i / 20 for i in range(21)], 0.5, 0.4)
    clamped = [min(max(math.exp(level), LOW), HIGH) for level in expected]
    torch.testing.assert_close(sigmas, torch.tensor(clamped, dtype=torch.float32), rtol=1e-4, atol=0)
    assert sigmas[10].item() == pytest.approx(math.exp(0.5), rel=1e-4)


def test_turbo_takes_the_timesteps_it_was_distilled_at() -> None:
    def at(*timesteps: int) -> Tensor:
        return torch.tensor([*(SD1.sigma(t) for t in timesteps), 0.0])

    assert torch.equal(spacings.turbo(SD1, 1), at(999))
    assert torch.equal(spacings.turbo(SD1, 4), at(999, 899, 799, 699))
    assert torch.equal(spacings.turbo(SD1, 2, 0.55), at(499, 399))
    assert torch.equal(spacings.turbo(SD1, 10, 0.2), at(199, 99))
    assert torch.equal(spacings.turbo(SD1, 10, 0.0), at())


@pytest.mark.parametrize(
    ("kind", "published"), [("SD1", "StableDiffusion"), ("SDXL", "StableDiffusionXL"), ("SVD", "StableDiffusionVideo")]
)
def test_ten_aligned_steps_are_those_that_diffusers_publishes(kind: str, published: str) -> None:
    tables: Any = importlib.import_module("diffusers.schedulers.scheduling_utils").AysSchedules
    expected = torch.tensor(tables[f"{published}Sigmas"])
    torch.testing.assert_close(spacings.aligned(kind, 10), expected, rtol=0.02, atol=0.003)
    timesteps = tables.get(f"{published}Timesteps")
    if timesteps:
        assert torch.equal(spacings.aligned(kind, 10)[:-1], torch.tensor([SD1.sigma(t) for t in timesteps]))


def test_more_aligned_steps_lie_on_lines_between_those_in_the_logarithm() -> None:
    ten, twenty = spacings.aligned("SDXL", 10), spacings.aligned("SDXL", 20)
    torch.testing.assert_close(twenty[::2], ten)
    torch.testing.assert_close(twenty[1:-2:2], (ten[:-2] * ten[1:-1]).sqrt())


def test_partly_aligned_steps_are_the_last_ones() -> None:
    whole = spacings.aligned("SD1", 12)
    assert torch.equal(spacings.aligned("SD1", 12, 0.5), whole[-7:])
    assert torch.equal(spacings.aligned("SD1", 12, 0.01), torch.zeros(1))
    assert len(spacings.aligned("SD1", 12, 0.0)) == 0


def test_one_step_starts_at_the_highest_level() -> None:
    for sigmas in (spacings.karras(1, LOW, HIGH), spacings.exponential(1, LOW, HIGH), spacings.aligned("SVD", 1)):
        assert sigmas[0].item() >= HIGH * 0.999999
        assert sigmas[1:].tolist() == [0.0]  # pyright: ignore[reportUnknownMemberType]  # torch types it bare


@pytest.mark.parametrize("terminal", [None, 0.1])
def test_levels_shifted_by_size_are_those_of_diffusers(terminal: float | None) -> None:
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    theirs: Any = cast(Any, FlowMatchEulerDiscreteScheduler)(use_dynamic_shifting=True, shift_terminal=terminal)
    theirs.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25], mu=0.95 + (2.05 - 0.95) * (2560 - 1024) / (4096 - 1024))
    torch.testing.assert_close(spacings.shifted_by_size(4, 2560, 2.05, 0.95, terminal), theirs.sigmas)


def test_one_level_shifted_by_size_is_pure_noise() -> None:
    torch.testing.assert_close(spacings.shifted_by_size(1, 4096, 2.05, 0.95, 0.1), torch.tensor([1.0, 0.0]))


def test_settings_without_a_schedule_are_explained() -> None:
    with pytest.raises(ValueError, match="rho 0: expected more than 0"):
        spacings.karras(5, LOW, HIGH, 0.0)
    for make in (spacings.exponential, spacings.polyexponential):
        with pytest.raises(ValueError, match="a noise level of 0 has no logarithm"):
            make(5, 0.0, HIGH)
    with pytest.raises(ValueError, match="leave the range of numbers"):
        spacings.variance_preserving(5, beta_d=5000.0)
