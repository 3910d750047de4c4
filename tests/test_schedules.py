"""Schedules against diffusers where it has them, against their formulas, and as properties of every one."""

import importlib
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nodes.maths.model_sampling import DiscreteSampling
from nodes.maths.schedules import DROP_PENULTIMATE, SCHEDULES, scheduled_sigmas, sigmas_for

SD1 = DiscreteSampling()
# diffusers hands tensors to numpy in a way that numpy 2 is going to refuse.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def diffusers_sigmas(steps: int, name: str = "EulerDiscreteScheduler", **config: Any) -> Tensor:
    theirs = getattr(importlib.import_module("diffusers"), name)(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **config
    )
    theirs.set_timesteps(steps)
    if hasattr(theirs, "sigmas"):
        return theirs.sigmas
    alpha_bar = theirs.alphas_cumprod[theirs.timesteps]
    return torch.cat([((1 - alpha_bar) / alpha_bar).sqrt(), torch.zeros(1)])


@pytest.mark.parametrize(
    ("schedule", "steps", "config"),
    [
        ("karras", 20, {"use_karras_sigmas": True}),
        ("karras", 7, {"use_karras_sigmas": True}),
        ("exponential", 20, {"use_exponential_sigmas": True}),
        ("exponential", 7, {"use_exponential_sigmas": True}),
        # Only where the evenly spaced timesteps are whole numbers: diffusers interpolates linearly between them.
        ("normal", 28, {"timestep_spacing": "linspace"}),
        ("normal", 10, {"timestep_spacing": "linspace"}),
        ("simple", 20, {"timestep_spacing": "trailing"}),
        ("simple", 25, {"timestep_spacing": "trailing"}),
        ("ddim_uniform", 20, {"name": "DDIMScheduler", "timestep_spacing": "leading", "steps_offset": 1}),
        ("ddim_uniform", 50, {"name": "DDIMScheduler", "timestep_spacing": "leading", "steps_offset": 1}),
    ],
)
def test_sigmas_are_those_of_diffusers(schedule: str, steps: int, config: dict[str, Any]) -> None:
    torch.testing.assert_close(
        scheduled_sigmas(SD1, schedule, steps), diffusers_sigmas(steps, **config), rtol=1e-4, atol=0
    )


def test_sgm_uniform_leaves_out_the_end_of_an_even_ramp() -> None:
    ramp = [SD1.sigma(999 - 37 * i) for i in range(27)]
    torch.testing.assert_close(scheduled_sigmas(SD1, "sgm_uniform", 27), torch.tensor([*ramp, 0.0]))


def test_beta_takes_the_quantiles_of_scipys_distribution() -> None:
    stats: Any = importlib.import_module("scipy.stats")
    for steps in (1, 2, 20, 33, 150):
        quantiles = stats.beta.ppf([1 - i / steps for i in range(steps)], 0.6, 0.6)
        timesteps = [round(quantile * 999) for quantile in quantiles]
        expected = [SD1.sigmas[t].item() for t in dict.fromkeys(timesteps)]
        assert torch.equal(scheduled_sigmas(SD1, "beta", steps), torch.tensor([*expected, 0.0]))


def test_linear_quadratic_joins_a_line_and_a_parabola_with_one_slope() -> None:
    fallen = 1 - scheduled_sigmas(SD1, "linear_quadratic", 200).double() / SD1.sigma_max
    differences = fallen.diff()
    torch.testing.assert_close(fallen[100].item(), 0.025, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(differences[:100], torch.full((100,), 0.00025).double(), rtol=0, atol=1e-6)
    assert differences[100:].diff().std().item() < 1e-6  # one curvature
    assert differences[100].item() == pytest.approx(0.00025 + differences[100:].diff().mean().item() / 2, abs=1e-6)


def test_kl_optimal_is_even_in_the_angle() -> None:
    angles = scheduled_sigmas(SD1, "kl_optimal", 20)[:-1].double().atan()
    assert angles[0].item() == pytest.approx(math.atan(SD1.sigma_max), abs=1e-6)
    assert angles[-1].item() == pytest.approx(math.atan(SD1.sigma_min), abs=1e-6)
    assert angles.diff().std().item() < 1e-6


samplings = st.builds(
    DiscreteSampling,
    beta_start=st.sampled_from([0.00085, 0.0001]),
    beta_end=st.sampled_from([0.012, 0.02]),
    schedule=st.sampled_from(["scaled_linear", "linear"]),
    steps=st.sampled_from([1000, 200]),
    zero_terminal_snr=st.booleans(),
)


@pytest.mark.parametrize("schedule", SCHEDULES)
@settings(max_examples=40, deadline=None)
@given(sampling=samplings, steps=st.integers(1, 200))
def test_every_schedule_falls_to_zero(schedule: str, sampling: DiscreteSampling, steps: int) -> None:
    sigmas = scheduled_sigmas(sampling, schedule, steps)
    assert sigmas.dtype == torch.float32
    assert sigmas.isfinite().all()
    assert (sigmas.diff() < 0).all()
    assert sigmas[-1].item() == 0.0
    assert sigmas[0].item() <= sampling.sigma_max * 1.001
    match schedule:
        case "beta":
            assert 2 <= len(sigmas) <= steps + 1
        case "ddim_uniform":
            assert len(sigmas) >= min(steps, sampling.steps - 1) + 1
        case _:
            assert len(sigmas) == steps + 1


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_very_many_steps_never_rise(schedule: str) -> None:
    sigmas = scheduled_sigmas(SD1, schedule, 3000)
    assert sigmas.isfinite().all()
    assert (sigmas.diff() <= 0).all()


@pytest.mark.parametrize("schedule", [name for name in SCHEDULES if name != "ddim_uniform"])
def test_one_step_goes_from_the_highest_sigma_to_none(schedule: str) -> None:
    sigmas = scheduled_sigmas(SD1, schedule, 1)
    torch.testing.assert_close(sigmas, torch.tensor([SD1.sigma_max, 0.0]), rtol=1e-5, atol=0)


def test_ddim_uniform_may_take_more_steps_than_asked() -> None:
    assert len(scheduled_sigmas(SD1, "ddim_uniform", 30)) == 31 + 1
    assert len(sigmas_for(SD1, "ddim_uniform", 30)) == 31 + 1


@settings(max_examples=60, deadline=None)
@given(
    schedule=st.sampled_from(["simple", "karras", "normal", "sgm_uniform"]),
    steps=st.integers(1, 40),
    denoise=st.floats(0.05, 0.9999),
    sampler=st.sampled_from(["euler", "dpm_2", "dpm_2_ancestral"]),
)
def test_partial_denoising_keeps_the_end_of_a_longer_schedule(
    schedule: str, steps: int, denoise: float, sampler: str
) -> None:
    sigmas = sigmas_for(SD1, schedule, steps, denoise, sampler)
    longer = sigmas_for(SD1, schedule, int(steps / denoise), 1.0, sampler)
    assert torch.equal(sigmas, longer[-(steps + 1) :])
    assert len(sigmas) == steps + 1


@pytest.mark.parametrize(("steps", "denoise", "computed"), [(20, 0.75, 26), (20, 0.8, 25), (10, 0.3, 33)])
def test_the_length_of_the_longer_schedule(steps: int, denoise: float, computed: int) -> None:
    expected = scheduled_sigmas(SD1, "karras", computed)[-(steps + 1) :]
    assert torch.equal(sigmas_for(SD1, "karras", steps, denoise), expected)


def test_almost_full_denoising_is_full_and_none_is_nothing() -> None:
    for schedule in ("karras", "ddim_uniform"):
        assert torch.equal(sigmas_for(SD1, schedule, 30, 0.99995), scheduled_sigmas(SD1, schedule, 30))
    assert len(sigmas_for(SD1, "karras", 20, 0.0)) == len(sigmas_for(SD1, "karras", 20, -1.0)) == 0


@pytest.mark.parametrize("sampler", sorted(DROP_PENULTIMATE))
def test_midpoint_samplers_leave_out_the_penultimate_sigma(sampler: str) -> None:
    longer = scheduled_sigmas(SD1, "karras", 21)
    assert torch.equal(sigmas_for(SD1, "karras", 20, 1.0, sampler), torch.cat([longer[:20], longer[-1:]]))


@pytest.mark.parametrize("steps", [0, -1])
def test_no_steps_are_refused(steps: int) -> None:
    for sampler in ("euler", "dpm_2"):
        for denoise in (1.0, 0.5):
            with pytest.raises(ValueError, match="at least 1 step"):
                sigmas_for(SD1, "karras", steps, denoise, sampler)


def test_unknown_schedules_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown schedule 'karas'; expected one of simple, sgm_uniform, karras"):
        scheduled_sigmas(SD1, "karas", 20)


def test_the_table_is_in_the_order_of_the_reference() -> None:
    assert " ".join(SCHEDULES) == (
        "simple sgm_uniform karras exponential ddim_uniform beta normal linear_quadratic kl_optimal"
    )
