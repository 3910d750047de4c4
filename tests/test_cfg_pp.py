"""CFG++: each sampler is its plain form without guidance, and goes back to noise along the unconditional prediction."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from nodes.maths.guidance import keep_area
from nodes.maths.model_sampling import DiscreteSampling
from nodes.maths.samplers import SAMPLERS, Guided, State, advance
from nodes.maths.schedules import sigmas_for
from tests.steps import SHAPE, begin, denoise, draws, floats, start, states

NAMES = [name for name, spec in SAMPLERS.items() if spec.uncond]
GUIDED = [(name, name.removesuffix("_cfg_pp")) for name in NAMES]
LEVELS = floats(sigmas_for(DiscreteSampling(), "karras", 10))


def guide(x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """A guided prediction away from an unconditional one."""
    uncond = denoise(x, sigma)
    return 1.5 * uncond.roll(1, dims=-1), uncond


def down(sigma: float, sigma_next: float, ancestral: bool) -> float:
    """The level that an ancestral step goes down to: sigma_next squared over sigma."""
    return sigma_next**2 / sigma if ancestral else sigma_next


def test_they_are_seven() -> None:
    assert len(NAMES) == 7


@pytest.mark.parametrize(("name", "plain"), GUIDED)
def test_without_guidance_it_is_the_plain_sampler(name: str, plain: str) -> None:
    ours = states(name, start(LEVELS[0]), LEVELS, draws())
    theirs = states(plain, start(LEVELS[0]), LEVELS, draws())
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.x, other.x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in NAMES if "2s" not in name])
def test_a_first_step_puts_the_unconditional_noise_on_the_guided_prediction(name: str) -> None:
    x = start(4.0)
    denoised, uncond = guide(x, 4.0)
    ancestral = "ancestral" in name
    after = advance(name, begin(name, x, [4.0, 2.0]), Guided(guide), 4.0, 2.0, lambda draw, a, b: torch.zeros(SHAPE))
    torch.testing.assert_close(after.x, denoised + (x - uncond) / 4.0 * down(4.0, 2.0, ancestral))
    assert torch.equal(after.denoised if after.denoised is not None else x, denoised)


def test_2s_takes_both_its_stages_from_where_guidance_has_moved_x() -> None:
    x = start(4.0)
    denoised, uncond = guide(x, 4.0)
    moved, first = x + denoised - uncond, list[Tensor]()

    def then_plain(x: Tensor, sigma: float) -> Tensor:
        first.append(x)
        return denoised if len(first) == 1 else guide(x, sigma)[0]

    ours = advance("dpmpp_2s_ancestral_cfg_pp", State(x), Guided(guide), 4.0, 2.0, draws())
    theirs = advance("dpmpp_2s_ancestral", State(moved), then_plain, 4.0, 2.0, draws())
    torch.testing.assert_close(ours.x, theirs.x)


def two_steps(name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The state after two steps; and x, both predictions and the unconditional one before, at the second."""
    visited = states(name, start(4.0), [4.0, 3.0, 2.0], lambda draw, a, b: torch.zeros(SHAPE), Guided(guide))
    return visited[1].x, visited[0].x, *guide(visited[0].x, 3.0)


def test_2m_goes_on_in_the_line_from_the_last_unconditional_prediction() -> None:
    after, x, denoised, uncond = two_steps("dpmpp_2m_cfg_pp")
    before = guide(start(4.0), 4.0)[1]
    h, h_last = torch.tensor(3.0 / 2.0).log(), torch.tensor(4.0 / 3.0).log()
    line = (1 - 2.0 / 3.0) * h / (2 * h_last) * (denoised - before)
    torch.testing.assert_close(after, denoised + 2.0 / 3.0 * (x - uncond) + line)


def test_gradient_estimation_adds_the_last_change_of_the_unconditional_slope() -> None:
    after, x, denoised, uncond = two_steps("gradient_estimation_cfg_pp")
    first = start(4.0)
    d, before = (x - uncond) / 3.0, (first - guide(first, 4.0)[1]) / 4.0
    torch.testing.assert_close(after, denoised + d * 2.0 + (d - before) * (2.0 - 3.0))


def test_res_goes_on_from_unconditional_predictions_at_the_moved_x() -> None:
    """As the plain step does from there with them."""
    after, x, denoised, uncond = two_steps("res_multistep_cfg_pp")
    before = guide(start(4.0), 4.0)[1]
    answers = iter([before, uncond])
    plain = State(start(4.0))
    plain = advance("res_multistep", plain, lambda x, sigma: next(answers), 4.0, 3.0, draws())
    moved = replace(plain, x=x + denoised - uncond)
    torch.testing.assert_close(
        advance("res_multistep", moved, lambda x, sigma: next(answers), 3.0, 2.0, draws()).x, after
    )


@pytest.mark.parametrize("name", NAMES)
def test_it_ends_on_the_guided_prediction(name: str) -> None:
    ended = states(name, start(LEVELS[0]), LEVELS, draws(), Guided(guide))[-1]
    assert ended.denoised is not None
    torch.testing.assert_close(ended.x, ended.denoised)


@pytest.mark.parametrize("name", NAMES)
def test_guidance_makes_a_difference(name: str) -> None:
    ours = states(name, start(LEVELS[0]), LEVELS, draws(), Guided(guide))[-1].x
    theirs = states(name, start(LEVELS[0]), LEVELS, draws(), lambda x, sigma: guide(x, sigma)[0])[-1].x
    assert not torch.allclose(ours, theirs, atol=0.1)


def test_a_kept_area_stays_what_it_was() -> None:
    mask = torch.zeros(SHAPE)
    mask[..., 4:] = 1.0
    latent, noise = start(1.0), draws()(0, 0.0, 0.0)
    masked = keep_area(Guided(guide), mask, noise, latent, DiscreteSampling())
    state = State(latent + LEVELS[0] * noise)
    for sigma, sigma_next in pairwise(LEVELS):
        state = advance("euler_cfg_pp", state, masked, sigma, sigma_next, draws())
    torch.testing.assert_close(state.x[..., :4], latent[..., :4])
    assert not torch.allclose(state.x[..., 4:], latent[..., 4:], atol=0.1)
