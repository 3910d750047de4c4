"""Guidance, mixing and masks as the formulas say, and what they leave untouched."""

import math

import pytest
import torch
from torch import Tensor

from nodes.maths.guidance import blend, guide, keep_area, prepare_mask
from nodes.maths.model_sampling import DiscreteSampling
from nodes.maths.noise import initial_noise
from nodes.maths.regions import mixed
from nodes.maths.samplers import SAMPLERS, Denoiser
from nodes.maths.schedules import sigmas_for
from tests.steps import floats, states

SD1 = DiscreteSampling()
SHAPE = (2, 4, 8, 8)
X = torch.zeros(SHAPE)


def constant(value: float) -> Denoiser:
    return lambda x, sigma: torch.full_like(x, value)


def test_guidance_goes_past_the_conditional_prediction() -> None:
    assert torch.equal(guide(X + 3.0, X + 1.0, 7.5), torch.full(SHAPE, 1 + 7.5 * (3.0 - 1)))


def test_guidance_at_scale_zero_is_the_unconditional() -> None:
    assert torch.equal(guide(X + 3.0, X + 1.0, 0.0), torch.full(SHAPE, 1.0))


def test_one_conditioning_alone_is_unchanged() -> None:
    noise = initial_noise(SHAPE, 1)
    assert torch.equal(mixed([noise], [1.0], [None], X), noise)


def test_weights_may_be_maps_and_nothing_is_where_all_are_zero() -> None:
    left = torch.zeros(1, 1, 1, 8)
    left[..., :3] = 0.4
    right = torch.zeros(1, 1, 1, 8)
    right[..., 5:] = 2.0
    both = mixed([torch.full(SHAPE, 1.0), torch.full(SHAPE, 7.0)], [left, right], [None, None], X)
    torch.testing.assert_close(both[1, 2, 3], torch.tensor([1.0, 1, 1, 0, 0, 7, 7, 7]))


def test_a_mask_is_scaled_bilinearly_and_stays_soft() -> None:
    ramp = torch.linspace(0, 1, 64).expand(1, 1, 64, 64)
    mask = prepare_mask(ramp, SHAPE)
    assert mask.shape == SHAPE
    expected = (ramp[0, 0, 0, 3::8] + ramp[0, 0, 0, 4::8]) / 2
    torch.testing.assert_close(mask[1, 3, 5], expected)


@pytest.mark.parametrize("shape", [(16, 16), (1, 16, 16), (1, 1, 16, 16), (2, 16, 16), (3, 1, 5, 31), (5, 16, 16)])
def test_masks_of_any_shape_fit(shape: tuple[int, ...]) -> None:
    assert torch.equal(prepare_mask(torch.ones(shape), SHAPE), torch.ones(SHAPE))


def test_masks_are_repeated_or_cut_to_the_batch() -> None:
    masks = torch.tensor([0.0, 1.0]).reshape(2, 1, 1).expand(2, 8, 8)
    assert [mask.mean().item() for mask in prepare_mask(masks, (5, 4, 8, 8))] == [0, 1, 0, 1, 0]
    assert [mask.mean().item() for mask in prepare_mask(masks, (1, 4, 8, 8))] == [0]


@pytest.mark.parametrize("shape", [(7,), (0, 4), (0, 1, 8, 8)])
def test_masks_without_pixels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a mask of shape"):
        prepare_mask(torch.ones(shape), SHAPE)


def test_blend_at_the_ends_of_the_mask_is_exact() -> None:
    new, old = initial_noise(SHAPE, 1), initial_noise(SHAPE, 2)
    assert torch.equal(blend(new, old, torch.ones(SHAPE)), new)
    assert torch.equal(blend(new, old, torch.zeros(SHAPE)), old)
    torch.testing.assert_close(blend(new, old, torch.full(SHAPE, 0.25)), 0.25 * new + 0.75 * old)


def test_a_kept_area_is_shown_noised_and_returned_clean() -> None:
    """Without the factor of a start from pure noise, whatever the sigma."""
    noise, latent, mask = initial_noise(SHAPE, 1), initial_noise(SHAPE, 2), torch.full(SHAPE, 0.25)
    seen = list[Tensor]()

    def spy(x: Tensor, sigma: float) -> Tensor:
        seen.append(x)
        return torch.ones_like(x)

    sigma = SD1.sigma_max
    x = torch.full(SHAPE, 3.0)
    out = keep_area(spy, mask, noise, latent, SD1)(x, sigma)
    torch.testing.assert_close(seen[0], 0.25 * x + 0.75 * (noise * sigma + latent))
    torch.testing.assert_close(out, 0.25 + 0.75 * latent)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_keeps_what_the_mask_keeps(name: str) -> None:
    """Where it arrives; those that end above 0 leave the noise of their last level on it."""
    noise, latent = initial_noise(SHAPE, 1), initial_noise(SHAPE, 2)
    half = torch.zeros(8, 8)
    half[:, 4:] = 1.0
    denoise = keep_area(lambda x, sigma: x / (1 + sigma**2) + 0.3, prepare_mask(half, SHAPE), noise, latent, SD1)
    sigmas = floats(sigmas_for(SD1, "normal", 8, 1.0, name))
    x = SD1.noise_scaling(sigmas[0], noise, latent, max_denoise=True)
    state = states(name, x, sigmas, lambda draw, a, b: initial_noise(SHAPE, 9 + draw), denoise)[-1]
    assert state.denoised is not None
    assert torch.equal(state.denoised[..., :4], latent[..., :4])
    left = {"dpm_fast": sigmas[-2], "dpm_adaptive": sigmas[-2], "uni_pc": 0.001, "uni_pc_bh2": 0.001}.get(name, 0.0)
    torch.testing.assert_close(state.x[..., :4], latent[..., :4], rtol=1e-5, atol=5 * left + 1e-5)
    assert not math.isclose(state.x[..., 4:].mean().item(), latent[..., 4:].mean().item(), rel_tol=0.01)
