"""Samplers against the schedulers of diffusers, step by step."""

import importlib
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from nodes.maths.samplers import State
from tests.steps import denoise, draws, start, states

BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
# diffusers hands tensors to numpy in ways that numpy 2 is going to refuse.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning"),
]


def scheduler(name: str, steps: int = 20, **config: Any) -> Any:
    """A scheduler of diffusers over the noise levels of Stable Diffusion 1."""
    made = getattr(importlib.import_module("diffusers"), name)(**BETAS, **config)
    made.set_timesteps(steps)
    if hasattr(made, "set_begin_index"):
        made.set_begin_index(0)
    made.is_scale_input_called = True
    return made


def in_sigma_space(
    theirs: Any, second: Callable[[float, float], float] | None = None, **arguments: Any
) -> tuple[list[float], list[Tensor]]:
    """The levels and the states of a scheduler that works on x = latent + sigma * noise.

    `second` says where, between the two levels of a step, it wants the network a second time.
    """
    levels = list(dict.fromkeys(theirs.sigmas.tolist()))
    x, visited, timesteps = start(levels[0]), list[Tensor](), iter(theirs.timesteps)
    for sigma, sigma_next in pairwise(levels):
        for at in (sigma, second(sigma, sigma_next)) if second and sigma_next > 0 else (sigma,):
            epsilon = (x - denoise(x, at)) / at
            x = theirs.step(epsilon, next(timesteps), x, **arguments).prev_sample
        visited.append(x)
    return levels, visited


def in_variance_preserving_space(
    theirs: Any, levels: list[float], arguments: Callable[[int], dict[str, Any]] = lambda step: {}
) -> list[Tensor]:
    """The states, brought to x = latent + sigma * noise, of a scheduler that works on x / sqrt(1 + sigma^2)."""
    x, visited = start(levels[0]), list[Tensor]()
    for i, (sigma, sigma_next) in enumerate(pairwise(levels)):
        scaled = x / math.sqrt(1 + sigma**2)
        scaled = theirs.step(denoise(x, sigma), theirs.timesteps[i], scaled, **arguments(i)).prev_sample
        visited.append(x := scaled * math.sqrt(1 + sigma_next**2))
    return visited


def assert_same_steps(ours: list[State], theirs: list[Tensor]) -> None:
    assert len(ours) == len(theirs) > 10
    for step, (state, x) in enumerate(zip(ours, theirs, strict=True)):
        error = ((state.x - x).abs().max() / x.abs().max()).item()
        assert error < 1e-5, f"step {step} differs by {error:.1e}"


def geometric_mean(sigma: float, sigma_next: float) -> float:
    return math.sqrt(sigma * sigma_next)


SPACINGS = [{}, {"use_karras_sigmas": True}, {"use_exponential_sigmas": True}]


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
def test_euler_is_diffusers_euler(spacing: dict[str, Any]) -> None:
    levels, theirs = in_sigma_space(scheduler("EulerDiscreteScheduler", **spacing))
    assert_same_steps(states("euler", start(levels[0]), levels), theirs)


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
def test_heun_is_diffusers_heun(spacing: dict[str, Any]) -> None:
    levels, theirs = in_sigma_space(scheduler("HeunDiscreteScheduler", **spacing), lambda sigma, sigma_next: sigma_next)
    assert_same_steps(states("heun", start(levels[0]), levels), theirs)


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
def test_dpm_2_is_diffusers_kdpm2(spacing: dict[str, Any]) -> None:
    levels, theirs = in_sigma_space(scheduler("KDPM2DiscreteScheduler", **spacing), geometric_mean)
    assert_same_steps(states("dpm_2", start(levels[0]), levels), theirs)


def test_euler_ancestral_is_diffusers_with_the_same_generator() -> None:
    theirs = scheduler("EulerAncestralDiscreteScheduler")
    levels, xs = in_sigma_space(theirs, generator=torch.Generator().manual_seed(5))
    assert_same_steps(states("euler_ancestral", start(levels[0]), levels, draws(5)), xs)


def test_dpm_2_ancestral_is_diffusers_kdpm2_with_the_same_generator() -> None:
    def above_sigma_down(sigma: float, sigma_next: float) -> float:
        sigma_up = sigma_next * math.sqrt(1 - (sigma_next / sigma) ** 2)
        return geometric_mean(sigma, math.sqrt(sigma_next**2 - sigma_up**2))

    theirs = scheduler("KDPM2AncestralDiscreteScheduler")
    levels, xs = in_sigma_space(theirs, above_sigma_down, generator=torch.Generator().manual_seed(5))
    assert_same_steps(states("dpm_2_ancestral", start(levels[0]), levels, draws(5)), xs)


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
def test_dpmpp_sde_is_diffusers_with_the_same_draws(spacing: dict[str, Any]) -> None:
    """Their noise sampler is replaced by ours: both then get the same draws in the same order, midpoint first."""
    theirs, drawn = scheduler("DPMSolverSDEScheduler", **spacing), iter(range(100))
    theirs.noise_sampler = lambda sigma, sigma_next: draws()(next(drawn), sigma, sigma_next)  # pyright: ignore  # diffusers is untyped
    levels, xs = in_sigma_space(theirs, geometric_mean)
    assert_same_steps(states("dpmpp_sde", start(levels[0]), levels, draws()), xs)


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
def test_dpmpp_2m_is_diffusers_dpmsolver(spacing: dict[str, Any]) -> None:
    theirs = scheduler("DPMSolverMultistepScheduler", prediction_type="sample", **spacing)
    levels = theirs.sigmas.tolist()
    assert_same_steps(states("dpmpp_2m", start(levels[0]), levels), in_variance_preserving_space(theirs, levels))


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
def test_dpmpp_2m_sde_is_diffusers_dpmsolver_with_the_same_noise(spacing: dict[str, Any]) -> None:
    theirs = scheduler(
        "DPMSolverMultistepScheduler", prediction_type="sample", algorithm_type="sde-dpmsolver++", **spacing
    )
    levels = theirs.sigmas.tolist()
    xs = in_variance_preserving_space(theirs, levels, lambda step: {"variance_noise": draws()(step, 0.0, 0.0)})
    assert_same_steps(states("dpmpp_2m_sde", start(levels[0]), levels, draws()), xs)


def levels_of_timesteps(theirs: Any) -> list[float]:
    alpha_bar = theirs.alphas_cumprod[theirs.timesteps]
    return [*((1 - alpha_bar) / alpha_bar).sqrt().tolist(), 0.0]


def test_ddim_is_diffusers_ddim() -> None:
    theirs = scheduler("DDIMScheduler", prediction_type="sample", clip_sample=False, steps_offset=1)
    levels = levels_of_timesteps(theirs)
    assert_same_steps(states("ddim", start(levels[0]), levels), in_variance_preserving_space(theirs, levels))


def test_lcm_is_diffusers_lcm() -> None:
    """Their blend of x into the prediction, meant for distilled networks, is made negligible by its own scaling."""
    theirs = scheduler(
        "LCMScheduler", prediction_type="sample", clip_sample=False, timestep_scaling=1e4, original_inference_steps=50
    )
    levels, generator = levels_of_timesteps(theirs), torch.Generator().manual_seed(5)
    xs = in_variance_preserving_space(theirs, levels, lambda step: {"generator": generator})
    assert_same_steps(states("lcm", start(levels[0]), levels, draws(5)), xs)


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
def test_lms_is_diffusers_lms_but_for_the_last_step(spacing: dict[str, Any]) -> None:
    """Theirs extrapolates to 0 as well; ours ends on the prediction."""
    levels, theirs = in_sigma_space(scheduler("LMSDiscreteScheduler", **spacing), order=4)
    assert_same_steps(states("lms", start(levels[0]), levels)[:-1], theirs[:-1])


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
def test_dpmpp_2m_sde_heun_is_diffusers_dpmsolver_with_the_same_noise(spacing: dict[str, Any]) -> None:
    theirs = scheduler(
        "DPMSolverMultistepScheduler", prediction_type="sample", algorithm_type="sde-dpmsolver++", solver_type="heun",
        **spacing,
    )  # fmt: skip
    levels = theirs.sigmas.tolist()
    xs = in_variance_preserving_space(theirs, levels, lambda step: {"variance_noise": draws()(step, 0.0, 0.0)})
    assert_same_steps(states("dpmpp_2m_sde_heun", start(levels[0]), levels, draws()), xs)


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
def test_dpmpp_3m_sde_without_noise_is_diffusers_dpmsolver_of_third_order(spacing: dict[str, Any]) -> None:
    """Their stochastic form has a sign in its third order that does not vanish with the step, so not against that."""
    theirs = scheduler(
        "DPMSolverMultistepScheduler", prediction_type="sample", solver_order=3, solver_type="heun", **spacing
    )
    levels = theirs.sigmas.tolist()
    xs = in_variance_preserving_space(theirs, levels)
    assert_same_steps(states("dpmpp_3m_sde", start(levels[0]), levels, settings={"eta": 0.0}), xs)


def test_ddpm_is_diffusers_ddpm_with_the_same_generator() -> None:
    theirs = scheduler("DDPMScheduler", prediction_type="sample", clip_sample=False, steps_offset=1)
    levels, generator = levels_of_timesteps(theirs), torch.Generator().manual_seed(5)
    xs = in_variance_preserving_space(theirs, levels, lambda step: {"generator": generator})
    assert_same_steps(states("ddpm", start(levels[0]), levels, draws(5)), xs)


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
@pytest.mark.parametrize(("name", "solver_type"), [("uni_pc", "bh1"), ("uni_pc_bh2", "bh2")])
def test_uni_pc_is_diffusers_unipc_but_for_the_last_step(name: str, solver_type: str, spacing: dict[str, Any]) -> None:
    """Theirs has no last step with bh1; ours goes to 0.001 instead of 0, as the reference does."""
    theirs = scheduler(
        "UniPCMultistepScheduler", prediction_type="sample", solver_order=3, solver_type=solver_type, **spacing
    )
    levels = theirs.sigmas.tolist()
    xs = in_variance_preserving_space(theirs, levels)
    ours = states(name, start(levels[0]), levels)
    assert_same_steps(ours[:-1], xs[:-1])
    torch.testing.assert_close(ours[-1].x, ours[-1].denoised, rtol=0.0, atol=0.01)


@pytest.mark.parametrize("tau", [0, 1])
def test_sa_solver_is_diffusers_sasolver_with_the_same_generator_but_for_the_end(tau: int) -> None:
    """Theirs always takes the simple form of the second order, and its order begins to fall a step later."""

    def always(timestep: object) -> int:
        return tau

    theirs = scheduler(
        "SASolverScheduler", prediction_type="sample", predictor_order=3, corrector_order=4, tau_func=always
    )
    levels, generator = theirs.sigmas.tolist(), torch.Generator().manual_seed(5)
    xs = in_variance_preserving_space(theirs, levels, lambda step: {"generator": generator})
    settings = {"high": math.inf, "low": 0.0, "eta": float(tau), "simple_order_2": True}
    assert_same_steps(states("sa_solver", start(levels[0]), levels, draws(5), settings=settings)[:-2], xs[:-2])
