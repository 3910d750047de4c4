"""How fast samplers converge where the solution is known: data that are normal with standard deviation SPREAD."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from nodes.maths.samplers import SAMPLERS, advance
from tests.steps import begin, floats, states

SPREAD = 0.7
HIGH, LOW = 10.0, 0.1
BEYOND = (0.05, 0.03, 0.02)
"""Levels that are still to come, so that nothing is made simpler for the end."""


def denoise(x: Tensor, sigma: float) -> Tensor:
    """Exact for these data."""
    return x * SPREAD**2 / (SPREAD**2 + sigma**2)


def exact(sigma: float) -> Tensor:
    """Where the probability flow leads that is 1 at HIGH."""
    return torch.full((1, 1, 1, 1), math.sqrt((SPREAD**2 + sigma**2) / (SPREAD**2 + HIGH**2)), dtype=torch.float64)


def falling(steps: int) -> list[float]:
    return floats(torch.linspace(math.log(HIGH), math.log(LOW), steps + 1, dtype=torch.float64).exp())


def order(error: Callable[[int], float]) -> float:
    """The slope of the error over the step size, doubly logarithmic."""
    return math.log2(error(64) / error(128))


def no_noise(draw: int, sigma: float, sigma_next: float) -> Tensor:
    return torch.zeros(1, 1, 1, 1, dtype=torch.float64)


CORRECTED_FIRST = {"uni_pc", "uni_pc_bh2", "sa_solver", "sa_solver_pece"}
"""These keep where the last step began, ahead of earlier predictions."""


def from_exact_beginning(name: str, sigmas: list[float], settings: Mapping[str, float]) -> Tensor:
    """Where a sampler arrives that finds itself on the exact solution after each of its first steps.

    A multistep method begins with steps of lower order, whose error would hide its own.
    """
    state = begin(name, exact(sigmas[0]), sigmas, settings)
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        state = replace(state, ahead=(*sigmas[i + 2 :], *BEYOND))
        state = advance(name, state, denoise, sigma, sigma_next, no_noise)
        if i < 4:
            began = (exact(sigma),) if name in CORRECTED_FIRST else state.history[:1]
            state = replace(state, x=exact(sigma_next), history=(*began, *state.history[1:]))
    return state.x


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("euler", 1), ("ddim", 1), ("heun", 2), ("heunpp2", 1), ("dpm_2", 2), ("lms", 4), ("ipndm_v", 4), ("deis", 3),
        ("dpmpp_2m", 2), ("res_multistep", 2), ("gradient_estimation", 1), ("uni_pc", 4), ("uni_pc_bh2", 4),
    ],
)  # fmt: skip
def test_order_of_convergence_to_the_probability_flow(name: str, expected: int) -> None:
    def error(steps: int) -> float:
        return abs(from_exact_beginning(name, falling(steps), {}) - exact(LOW)).item()

    assert SAMPLERS[name].order == expected
    assert order(error) == pytest.approx(expected, abs=0.2)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("euler_ancestral", 1), ("dpmpp_2s_ancestral", 2), ("dpmpp_sde", 2), ("dpmpp_2m_sde", 2),
        ("dpmpp_2m_sde_heun", 2), ("dpmpp_3m_sde", 2), ("res_multistep_ancestral", 2), ("seeds_2", 2), ("seeds_3", 3),
        ("er_sde", 2), ("sa_solver", 4), ("sa_solver_pece", 4),
    ],
)  # fmt: skip
def test_stochastic_samplers_without_noise_converge_to_the_probability_flow(name: str, expected: int) -> None:
    settings = {"eta": 0.0} | ({"points": 20000} if name == "er_sde" else {})

    def error(steps: int) -> float:
        return abs(from_exact_beginning(name, falling(steps), settings) - exact(LOW)).item()

    assert order(error) == pytest.approx(expected, abs=0.2)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("euler_ancestral", 1), ("ddpm", 1), ("dpm_2_ancestral", 2), ("dpmpp_2s_ancestral", 2), ("dpmpp_sde", 2),
        ("dpmpp_2m_sde", 2), ("dpmpp_2m_sde_heun", 2), ("dpmpp_3m_sde", 2), ("res_multistep_ancestral", 2),
        ("er_sde", 2), ("seeds_2", 2), ("seeds_3", 2), ("sa_solver", 2), ("sa_solver_pece", 2),
    ],
)  # fmt: skip
def test_order_of_convergence_to_the_exact_variance(name: str, expected: int) -> None:
    """All is linear in the start and the noise, so x can hold its coefficients: the variance is their squares' sum."""
    parts = 6  # of a step, so that midpoints and thirds fall between two of them

    def error(steps: int) -> float:
        sigmas, fine = falling(steps), torch.tensor(falling(parts * steps), dtype=torch.float64)
        x = torch.zeros(1, 1, 1, parts * steps + 1, dtype=torch.float64)
        x[..., -1] = math.sqrt(SPREAD**2 + HIGH**2)

        def noise(draw: int, sigma: float, sigma_next: float) -> Tensor:
            """The increment of one Brownian path, in coefficients of its increments over parts of a step."""
            inside = (fine[:-1] < sigma * (1 + 1e-6)) & (fine[1:] > sigma_next * (1 - 1e-6))
            lengths = torch.where(inside, -fine.diff(), 0.0)
            return torch.cat([(lengths / lengths.sum()).sqrt(), torch.zeros(1)]).reshape(x.shape)

        settings = {"points": 5000} if name == "er_sde" else {}
        ended = states(name, x, sigmas, noise, denoise, settings, BEYOND)[-1].x
        return abs(ended.square().sum().item() - SPREAD**2 - LOW**2)

    assert SAMPLERS[name].order == expected
    assert order(error) == pytest.approx(expected, abs=0.2)


@pytest.mark.parametrize(("predictor", "corrector"), [(1, 0), (2, 0), (3, 0), (2, 3)])
def test_the_order_of_sa_solver_is_that_of_its_better_half(predictor: int, corrector: int) -> None:
    settings = {"eta": 0.0, "predictor_order": predictor, "corrector_order": corrector}

    def error(steps: int) -> float:
        return abs(from_exact_beginning("sa_solver", falling(steps), settings) - exact(LOW)).item()

    assert order(error) == pytest.approx(max(predictor, corrector), abs=0.25)


def test_dpm_fast_is_of_third_order_in_its_evaluations() -> None:
    def error(thirds: int) -> float:
        """With two evaluations over, so that the last step is of second order, whose error is small enough."""
        sigmas = falling(3 * thirds + 2)
        return abs(states("dpm_fast", exact(HIGH), sigmas, no_noise, denoise)[-1].x - exact(LOW)).item()

    assert math.log2(error(32) / error(64)) == pytest.approx(3, abs=0.15)


def test_dpm_adaptive_is_as_exact_as_it_is_asked_to_be() -> None:
    def error(tolerance: float) -> float:
        settings = {"rtol": tolerance, "atol": tolerance}
        ended = states("dpm_adaptive", exact(HIGH), falling(10), no_noise, denoise, settings)[-1].x
        return abs(ended - exact(LOW)).item()

    errors = [error(tolerance) for tolerance in (1e-2, 1e-4, 1e-6)]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert errors[2] < 1e-5


def test_the_orders_in_the_table_are_those_found_here() -> None:
    """What CFG++ and another device's noise change is not how fast a sampler converges."""
    for name, spec in SAMPLERS.items():
        plain = name.removesuffix("_gpu").removesuffix("_cfg_pp")
        assert spec.order == SAMPLERS[plain].order, name
