"""Rectified flows: their levels, and every sampler on them, where the solution is known.

The data are normal with standard deviation SPREAD, so that at a level sigma a flow's x has the variance
(1 - sigma)²·SPREAD² + sigma².
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nodes.maths.flow_sampling import FlowSampling
from nodes.maths.noise import BrownianNoise
from nodes.maths.samplers import SAMPLERS, State, advance, settings_for
from nodes.maths.schedules import SCHEDULES, sigmas_for
from tests.steps import SHAPE, draws, floats

SPREAD = 0.7
FLOW = FlowSampling()
HIGH, LOW = 0.95, 0.1
BEYOND = (0.05, 0.03, 0.02)


def deviation(sigma: float) -> float:
    return math.hypot((1 - sigma) * SPREAD, sigma)


def denoise(x: Tensor, sigma: float) -> Tensor:
    """Exact for these data: the mean of the latent, given x."""
    return x * (1 - sigma) * SPREAD**2 / deviation(sigma) ** 2


def falling(steps: int) -> list[float]:
    """Even in the logarithm of the signal-to-noise ratio."""
    high, low = (math.log(level / (1 - level)) for level in (HIGH, LOW))
    return floats(torch.linspace(high, low, steps + 1, dtype=torch.float64).sigmoid())


def told(name: str, sigmas: list[float], settings: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    return tuple((dict(settings_for(name, FLOW, [*sigmas, *BEYOND])) | dict(settings)).items())


def no_noise(draw: int, sigma: float, sigma_next: float) -> Tensor:
    return torch.zeros(1, 1, 1, 1, dtype=torch.float64)


def exact(sigma: float) -> Tensor:
    """Where the probability flow leads that is 1 at HIGH."""
    return torch.full((1, 1, 1, 1), deviation(sigma) / deviation(HIGH), dtype=torch.float64)


def error_without_noise(name: str, steps: int) -> float:
    """How far a sampler that adds no noise ends from the exact solution, after four exact steps at the beginning."""
    sigmas = falling(steps)
    settings = {"eta": 0.0} if SAMPLERS[name].noise != "none" else {}
    state = State(exact(HIGH), settings=told(name, sigmas, settings))
    for at, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        state = replace(state, ahead=(*sigmas[at + 2 :], *BEYOND))
        state = advance(name, state, denoise, sigma, sigma_next, no_noise)
        if at < 4 and not name.startswith(("uni_pc", "sa_solver")):
            state = replace(state, x=exact(sigma_next))
    return abs(state.x - exact(LOW)).item()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("euler", 1), ("ddim", 1), ("heun", 2), ("heunpp2", 1), ("dpm_2", 2), ("lms", 4), ("ipndm_v", 4), ("deis", 3),
        ("gradient_estimation", 1), ("euler_ancestral", 1), ("dpmpp_2s_ancestral", 2), ("dpmpp_sde", 2),
        ("dpmpp_2m_sde", 2), ("dpmpp_2m_sde_heun", 2), ("dpmpp_3m_sde", 2), ("seeds_2", 2), ("seeds_3", 3),
        ("euler_cfg_pp", 1), ("euler_ancestral_cfg_pp", 1),
    ],
)  # fmt: skip
def test_order_of_convergence_to_the_probability_flow(name: str, expected: int):
    assert math.log2(error_without_noise(name, 64) / error_without_noise(name, 128)) == pytest.approx(expected, abs=0.3)


@pytest.mark.parametrize("name", ["dpmpp_2m", "res_multistep", "uni_pc", "er_sde", "sa_solver", "sa_solver_pece"])
def test_others_converge_to_it_too(name: str):
    assert error_without_noise(name, 128) < error_without_noise(name, 64) * 0.6 < 0.01


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("euler_ancestral", 1), ("dpm_2_ancestral", 2), ("dpmpp_2s_ancestral", 2), ("dpmpp_sde", 2),
        ("dpmpp_2m_sde", 2), ("dpmpp_2m_sde_heun", 2), ("dpmpp_3m_sde", 2), ("er_sde", 2), ("seeds_2", 2),
        ("seeds_3", 2), ("sa_solver", 2), ("sa_solver_pece", 2), ("euler_ancestral_cfg_pp", 1),
    ],
)  # fmt: skip
def test_order_of_convergence_to_the_exact_variance(name: str, expected: int):
    """All is linear in the start and the noise, so x can hold its coefficients: the variance is their squares' sum."""
    parts = 6

    def error(steps: int) -> float:
        sigmas, fine = falling(steps), torch.tensor(falling(parts * steps), dtype=torch.float64)
        x = torch.zeros(1, 1, 1, parts * steps + 1, dtype=torch.float64)
        x[..., -1] = deviation(HIGH)

        def noise(draw: int, sigma: float, sigma_next: float) -> Tensor:
            inside = (fine[:-1] < sigma * (1 + 1e-6)) & (fine[1:] > sigma_next * (1 - 1e-6))
            lengths = torch.where(inside, -fine.diff(), 0.0)
            return torch.cat([(lengths / lengths.sum()).sqrt(), torch.zeros(1)]).reshape(x.shape)

        settings = {"points": 5000} if name == "er_sde" else {}
        state = State(x, settings=told(name, sigmas, settings))
        for at, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
            state = replace(state, ahead=(*sigmas[at + 2 :], *BEYOND))
            state = advance(name, state, denoise, sigma, sigma_next, noise)
        return abs(state.x.square().sum().item() - deviation(LOW) ** 2)

    assert math.log2(error(32) / error(64)) == pytest.approx(expected, abs=0.4)


@pytest.mark.parametrize("scheduler", ["simple", "karras"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_goes_from_pure_noise_to_a_picture(name: str, scheduler: str):
    sigmas = floats(sigmas_for(FlowSampling(shift=3.0), scheduler, 12, sampler_name=name))
    assert sigmas[0] == pytest.approx(1.0) and sigmas[-1] == 0
    brownian = SAMPLERS[name].noise == "brownian"
    noise = BrownianNoise(5, sigmas[-2], sigmas[0], SHAPE) if brownian else draws()
    state = State(draws(6)(0, 1, 0), settings=told(name, sigmas, {}))
    for at, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        state = advance(name, replace(state, ahead=tuple(sigmas[at + 2 :])), denoise, sigma, sigma_next, noise)
    assert state.x.isfinite().all()
    assert 0.1 < state.x.std().item() < 2.0


@given(st.floats(0.01, 0.99), st.floats(0.2, 8))
def test_timesteps_and_levels_are_each_others_inverse(sigma: float, shift: float):
    sampling = FlowSampling(shift, multiplier=1000.0)
    u = sigma / (shift - (shift - 1) * sigma)
    assert sampling.sigma(u * 1000) == pytest.approx(sigma)
    assert sampling.timestep(sigma) == pytest.approx(1000 * sigma)
    assert sampling.percent_to_sigma(1 - u) == pytest.approx(sigma)


@given(st.floats(0.01, 0.99))
def test_what_is_noised_and_not_denoised_keeps_the_latents_scale(sigma: float):
    latent, noise = draws(1)(0, 1, 0), torch.zeros(SHAPE)
    torch.testing.assert_close(
        FLOW.noise_unscaling(sigma, FLOW.noise_scaling(sigma, noise, latent)), latent, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_levels_and_eulers_method_are_those_of_diffusers(shift: float):
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    theirs: Any = FlowMatchEulerDiscreteScheduler(shift=shift)
    ours = FlowSampling(shift)
    torch.testing.assert_close(ours.sigmas.flip(0), theirs.sigmas, rtol=1e-6, atol=0)
    sigmas = floats(sigmas_for(ours, "normal", 8))
    theirs.set_timesteps(sigmas=[level / (shift - (shift - 1) * level) for level in sigmas[:-1]])
    torch.testing.assert_close(torch.tensor(sigmas), theirs.sigmas)
    x = mine = draws(6)(0, 1, 0)
    for (sigma, sigma_next), timestep in zip(pairwise(sigmas), theirs.timesteps, strict=True):
        slope = (x - denoise(x, sigma)) / sigma
        x = theirs.step(slope, timestep, x).prev_sample
        mine = advance("euler", State(mine), denoise, sigma, sigma_next, draws()).x
        torch.testing.assert_close(mine, x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_falls_from_1_to_0(name: str):
    sigmas = floats(sigmas_for(FlowSampling(shift=3.0), name, 10))
    assert sigmas[0] == pytest.approx(1, abs=0.04) and sigmas[-1] == 0
    assert all(level > after for level, after in pairwise(sigmas))
