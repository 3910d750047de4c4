"""Samplers against diffusers step by step, against exact solutions, and against their own promise of purity."""

import importlib
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from nodes.maths.model_sampling import DiscreteSampling
from nodes.maths.noise import BrownianNoise, SequentialNoise
from nodes.maths.samplers import SAMPLERS, Denoiser, NoiseSource, State, advance
from nodes.maths.schedules import sigmas_for

SHAPE = (2, 4, 8, 8)
BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
# diffusers hands tensors to numpy in ways that numpy 2 is going to refuse.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning"),
]
STOCHASTIC = [name for name, spec in SAMPLERS.items() if spec.noise != "none"]


def denoise(x: Tensor, sigma: float) -> Tensor:
    """A smooth, nonlinear stand-in for a network: the mean of data at -1 and 1, each spread by a half."""
    return (0.25 * x + sigma**2 * torch.tanh(x / (0.25 + sigma**2))) / (0.25 + sigma**2)


def no_noise(draw: int, sigma: float, sigma_next: float) -> Tensor:
    return torch.zeros(SHAPE)


def draws(seed: int = 5) -> SequentialNoise:
    return SequentialNoise(seed, SHAPE)


def floats(sigmas: Tensor) -> list[float]:
    return [sigma.item() for sigma in sigmas]


def states(
    name: str, x: Tensor, sigmas: list[float], noise: NoiseSource = no_noise, denoise: Denoiser = denoise
) -> list[State]:
    """Where the sampler stands after each step."""
    state, visited = State(x), list[State]()
    for sigma, sigma_next in pairwise(sigmas):
        visited.append(state := advance(name, state, denoise, sigma, sigma_next, noise))
    return visited


# --- step by step against diffusers ---


def scheduler(name: str, steps: int = 20, **config: Any) -> Any:
    """A scheduler of diffusers over the noise levels of Stable Diffusion 1."""
    made = getattr(importlib.import_module("diffusers"), name)(**BETAS, **config)
    made.set_timesteps(steps)
    if hasattr(made, "set_begin_index"):
        made.set_begin_index(0)
    made.is_scale_input_called = True
    return made


def start(sigma: float) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)) * sigma


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
    theirs.noise_sampler = lambda sigma, sigma_next: draws()(next(drawn), sigma, sigma_next)  # pyright: ignore
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


# --- order of convergence where the solution is known ---

SPREAD = 0.7


def denoise_gaussian(x: Tensor, sigma: float) -> Tensor:
    """Exact for data that are normal with standard deviation SPREAD."""
    return x * SPREAD**2 / (SPREAD**2 + sigma**2)


def falling(steps: int) -> list[float]:
    return floats(torch.linspace(math.log(10.0), math.log(0.1), steps + 1, dtype=torch.float64).exp())


def order(error: Callable[[int], float]) -> float:
    """The slope of the error over the step size, doubly logarithmic."""
    return math.log2(error(64) / error(128))


@pytest.mark.parametrize(("name", "expected"), [("euler", 1), ("ddim", 1), ("heun", 2), ("dpm_2", 2), ("dpmpp_2m", 2)])
def test_order_of_convergence_to_the_probability_flow(name: str, expected: int) -> None:
    def error(steps: int) -> float:
        x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        ended = states(name, x, falling(steps), no_noise, denoise_gaussian)[-1].x.item()
        return abs(ended - math.sqrt((SPREAD**2 + 0.1**2) / (SPREAD**2 + 10.0**2)))

    assert SAMPLERS[name].order == expected
    assert order(error) == pytest.approx(expected, abs=0.15)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("euler_ancestral", 1),
        ("dpm_2_ancestral", 2),
        ("dpmpp_2s_ancestral", 2),
        ("dpmpp_sde", 2),
        ("dpmpp_2m_sde", 2),
    ],
)
def test_order_of_convergence_to_the_exact_variance(name: str, expected: int) -> None:
    """All is linear in the start and the noise, so x can hold its coefficients: the variance is their squares' sum."""

    def error(steps: int) -> float:
        sigmas = falling(steps)
        fine = falling(2 * steps)
        x = torch.zeros(1, 1, 1, 2 * steps + 1, dtype=torch.float64)
        x[..., -1] = math.sqrt(SPREAD**2 + sigmas[0] ** 2)

        def noise(draw: int, sigma: float, sigma_next: float) -> Tensor:
            """The increment of one Brownian path, in coefficients of its increments over half steps."""
            high, low = torch.tensor(fine[:-1]), torch.tensor(fine[1:])
            inside = (high < sigma * (1 + 1e-6)) & (low > sigma_next * (1 - 1e-6))
            lengths = torch.where(inside, high - low, 0).double()
            return torch.cat([(lengths / lengths.sum()).sqrt(), torch.zeros(1)]).reshape(x.shape)

        ended = states(name, x, sigmas, noise, denoise_gaussian)[-1].x
        return abs(ended.square().sum().item() - SPREAD**2 - sigmas[-1] ** 2)

    assert SAMPLERS[name].order == expected
    assert order(error) == pytest.approx(expected, abs=0.2)


# --- purity and the ends of the contract ---


def full_noise(name: str, sigmas: list[float]) -> NoiseSource:
    match SAMPLERS[name].noise:
        case "brownian":
            return BrownianNoise(5, min(filter(None, sigmas)), sigmas[0], SHAPE)
        case "sequential" | "none":
            return draws()


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_frozen_state_continues_bit_for_bit(name: str) -> None:
    sigmas = floats(sigmas_for(DiscreteSampling(), "karras", 8, 1.0, name))
    whole = states(name, start(sigmas[0]), sigmas, full_noise(name, sigmas))
    for i in range(1, len(whole)):
        again = advance(name, whole[i - 1], denoise, sigmas[i], sigmas[i + 1], full_noise(name, sigmas))
        assert torch.equal(again.x, whole[i].x)
        assert again.draws == whole[i].draws


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_step_leaves_its_inputs_as_they_were(name: str) -> None:
    sigmas = floats(sigmas_for(DiscreteSampling(), "normal", 6, 1.0, name))
    state = State(x := start(sigmas[0]))
    for sigma, sigma_next in pairwise(sigmas):
        before = [state.x.clone(), *(old.clone() for old in state.history)]
        after = advance(name, state, denoise, sigma, sigma_next, full_noise(name, sigmas))
        assert all(map(torch.equal, before, [state.x, *state.history]))
        state = after
    assert torch.equal(x, start(sigmas[0]))


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_last_step_ends_on_the_prediction(name: str) -> None:
    after = advance(name, State(start(0.5)), denoise, 0.5, 0.0, no_noise)
    assert after.denoised is not None
    assert after.draws == 0
    torch.testing.assert_close(after.x, after.denoised)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_table_tells_the_evaluations_and_the_kind_of_noise(name: str) -> None:
    asked = list[float]()

    def counted(x: Tensor, sigma: float) -> Tensor:
        asked.append(sigma)
        return denoise(x, sigma)

    after = advance(name, State(start(2.0)), counted, 2.0, 1.0, draws())
    assert len(asked) == SAMPLERS[name].evaluations
    assert (after.draws > 0) == (SAMPLERS[name].noise != "none")


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("schedule", ["simple", "beta", "ddim_uniform"])
def test_more_steps_than_timesteps_stay_finite(name: str, schedule: str) -> None:
    sigmas = floats(sigmas_for(DiscreteSampling(), schedule, 1500, 1.0, name)[-40:])
    assert states(name, start(sigmas[0]), sigmas, draws())[-1].x.isfinite().all()


@pytest.mark.parametrize("name", SAMPLERS)
def test_latents_may_live_on_another_device_than_noise_and_sigmas(name: str) -> None:
    """The meta device computes shapes only; mixing it with the CPU in the wrong place is an error there as on a GPU."""
    visited = states(name, start(8.0).to("meta"), [8.0, 4.0, 2.0, 0.0], draws())
    assert visited[-1].x.shape == SHAPE
    assert visited[-1].x.device.type == "meta"


def test_the_table_is_in_the_order_of_the_reference() -> None:
    assert list(SAMPLERS) == [
        "euler", "euler_ancestral", "heun", "dpm_2", "dpm_2_ancestral", "dpmpp_2s_ancestral",
        "dpmpp_sde", "dpmpp_2m", "dpmpp_2m_sde", "lcm", "ddim",
    ]  # fmt: skip


@pytest.mark.parametrize("name", STOCHASTIC)
def test_a_stochastic_step_cannot_rise(name: str) -> None:
    with pytest.raises(ValueError, match="cannot step up"):
        advance(name, State(start(1.0)), denoise, 1.0, 2.0, draws())


def test_a_bad_step_is_refused() -> None:
    for sigma, sigma_next in [(0.0, 0.0), (-1.0, 0.0), (math.nan, 0.0), (1.0, math.nan), (1.0, -1.0)]:
        with pytest.raises(ValueError, match="expected a positive sigma"):
            advance("euler", State(start(1.0)), denoise, sigma, sigma_next, no_noise)
    with pytest.raises(ValueError, match="unknown sampler 'eular'; expected one of euler"):
        advance("eular", State(start(1.0)), denoise, 1.0, 0.5, no_noise)
