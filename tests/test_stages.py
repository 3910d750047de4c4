"""The stages of diffusion as nodes: forward diffusion, start, step, end."""

from pathlib import Path

import pytest
import torch

from nodes.denoiser import sampling_of
from nodes.latent_scale import for_network
from nodes.maths.noise import initial_noise
from nodes.model_overrides import flow_sd3
from nodes.models import DenoiseNetwork, ModelPool
from nodes.sampling import disable_noise, forward_diffusion, random_noise
from nodes.schedules import basic_scheduler, split_sigmas
from nodes.trajectory import WrongLatent, end, start, step
from nodes.values import Conditioning, Latent, Model, Noise, Prompt, SamplerState, Sigmas, Weights

MODEL = Model(Weights(Path("none"), "toy", "toy"))
LATENT = Latent(torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)))


def test_forward_diffusion_ends_where_the_picture_is():
    sigmas = basic_scheduler(MODEL, "karras", 5, 1.0)
    clean = forward_diffusion(MODEL, Noise(3), sigmas, LATENT, 5)
    torch.testing.assert_close(clean.samples, LATENT.samples)


def test_forward_diffusion_adds_the_noise_of_its_level():
    sigmas = Sigmas((3.0, 1.0, 0.0))
    noisy = forward_diffusion(MODEL, Noise(3), sigmas, LATENT, 1, "exploding")
    noise = initial_noise((1, 4, 8, 8), 3)
    torch.testing.assert_close(for_network(MODEL, noisy.samples), for_network(MODEL, LATENT.samples) + noise)


def test_variance_is_preserved_for_those_who_look():
    exploding, preserving = (
        forward_diffusion(MODEL, Noise(3), Sigmas((3.0, 0.0)), LATENT, 0, variance)
        for variance in ("exploding", "preserving")
    )
    torch.testing.assert_close(preserving.samples * 10**0.5, exploding.samples)


def test_a_level_beyond_the_schedule_is_explained():
    with pytest.raises(ValueError, match="no noise level 3: this schedule has 2"):
        forward_diffusion(MODEL, Noise(3), Sigmas((3.0, 0.0)), LATENT, 3)


def test_starting_and_ending_without_a_step_returns_the_noised_latent():
    state = start(MODEL, Noise(7), LATENT, "euler", 2.0, 7, False, 0.0)
    back = end(MODEL, state, LATENT)
    noise = initial_noise((1, 4, 8, 8), 7)
    torch.testing.assert_close(for_network(MODEL, back.samples), for_network(MODEL, LATENT.samples) + 2.0 * noise)
    assert back.unfinished is state


def test_pure_noise_starts_at_the_variance_of_training():
    sigma = sampling_of(MODEL).sigma_max
    state = start(MODEL, Noise(7), Latent(torch.zeros(1, 4, 8, 8)), "euler", sigma, 7, True, 0.0)
    torch.testing.assert_close(state.x, initial_noise((1, 4, 8, 8), 7) * (1 + sigma**2) ** 0.5)


def test_an_unfinished_latent_goes_on_only_if_it_is_untouched():
    state = start(MODEL, Noise(7), LATENT, "euler", 2.0, 7, False, 0.0)
    leftover = end(MODEL, state, None)
    assert start(MODEL, disable_noise(), leftover, "euler", 2.0, 7, False, 0.0) is state
    changed = Latent(leftover.samples + 1e-3, unfinished=state)
    assert start(MODEL, disable_noise(), changed, "euler", 2.0, 7, False, 0.0) is not state
    assert start(MODEL, disable_noise(), leftover, "euler", 2.0, 8, False, 0.0) is not state


def test_a_noise_mask_leaves_the_kept_area_exactly_as_it_was():
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 4:] = 1.0
    masked = Latent(LATENT.samples, noise_mask=mask)
    state = start(MODEL, random_noise(7), masked, "euler", 0.0, 7, False, 0.0)
    finished = end(MODEL, state, masked)
    assert torch.equal(finished.samples[..., :4], LATENT.samples[..., :4])


def test_a_latent_of_another_family_is_refused():
    with pytest.raises(WrongLatent, match="4 channels, but this latent has 16"):
        start(MODEL, Noise(7), Latent(torch.ones(1, 16, 8, 8)), "euler", 2.0, 7, False, 0.0)


@pytest.mark.parametrize("channels", [1, 16])
def test_an_empty_latent_of_another_family_is_as_good_as_one_of_the_models_own(channels: int):
    mask = torch.ones(1, 1, 8, 8)
    mask[..., :4] = 0.0
    foreign, own = (Latent(torch.zeros(1, count, 8, 8), noise_mask=mask) for count in (channels, 4))
    begun, expected = (start(MODEL, Noise(7), latent, "euler", 2.0, 7, True, 0.0) for latent in (foreign, own))
    assert torch.equal(begun.x, expected.x)
    states = [
        step(Echo(device="cpu"), MODEL, PROMPT, None, 1.0, begun, 2.0, 0.0, Noise(7), latent)
        for latent in (foreign, own)
    ]
    finished, same = (end(MODEL, state, latent) for state, latent in zip(states, (foreign, own), strict=True))
    assert torch.equal(finished.samples, same.samples) and finished.samples.shape == (1, 4, 8, 8)
    assert finished.samples[..., 4:].all() and not finished.samples[..., :4].any()


@pytest.mark.parametrize(("sampler", "enlarged"), [("uni_pc", 1 / 0.999), ("uni_pc_bh2", 1 / 0.999), ("euler", 1.0)])
def test_a_flow_that_comes_down_to_a_thousandth_is_enlarged_for_it(sampler: str, enlarged: float):
    flow = flow_sd3(MODEL)
    state = SamplerState(LATENT.samples, 0.0, sampler, 7, MODEL.weights.identity)
    found = for_network(MODEL, end(flow, state, None).samples)
    torch.testing.assert_close(found, LATENT.samples * enlarged)
    torch.testing.assert_close(for_network(MODEL, end(MODEL, state, None).samples), LATENT.samples)


def test_a_schedule_cut_in_two_shares_the_level_at_the_cut():
    high, low = split_sigmas(Sigmas((3.0, 2.0, 1.0, 0.0)), 1)
    assert high.values == (3.0, 2.0) and low.values == (2.0, 1.0, 0.0)


def test_basic_scheduler_takes_only_1_for_full_denoising():
    assert len(basic_scheduler(MODEL, "normal", 10, 0.5).values) == 11
    assert basic_scheduler(MODEL, "normal", 10, 0.0).values == ()
    assert basic_scheduler(MODEL, "normal", 10, 0.5).values[0] < basic_scheduler(MODEL, "normal", 10, 1.0).values[0]


def test_a_schedule_of_millions_of_steps_is_refused():
    with pytest.raises(ValueError, match="10 steps at denoise 1e-08 need a schedule of 1e\\+09; raise denoise"):
        basic_scheduler(MODEL, "normal", 10, 1e-8)


def test_a_sampler_that_looks_ahead_must_be_told_what_is_there():
    state = start(MODEL, Noise(7), LATENT, "heunpp2", 2.0, 7, False, 0.0)
    with pytest.raises(ValueError, match="'heunpp2' looks at the noise levels after this step"):
        step(Echo(device="cpu"), MODEL, PROMPT, None, 1.0, state, 2.0, 1.0, None, None)
    told = step(Echo(device="cpu"), MODEL, PROMPT, None, 1.0, state, 2.0, 1.0, None, None, (0.5, 0.0))
    untold = step(Echo(device="cpu"), MODEL, PROMPT, None, 1.0, state, 2.0, 1.0, None, None, ())
    assert not torch.allclose(told.x, untold.x)


def test_the_highest_seed_has_a_next_one_for_the_kept_area_of_ddim():
    masked = Latent(LATENT.samples, noise_mask=torch.full((1, 1, 8, 8), 0.5))
    seed = 2**64 - 1
    state = start(MODEL, Noise(seed), masked, "ddim", 2.0, seed, False, 0.0)
    after = step(Echo(device="cpu"), MODEL, PROMPT, None, 1.0, state, 2.0, 1.0, Noise(seed), masked)
    assert torch.isfinite(after.x).all()


class Echo(ModelPool):
    """A pool whose network predicts what it is shown."""

    def denoise_network(self, model: Model) -> DenoiseNetwork:
        return lambda x, timestep, context, told=None, residuals=None, /: x


PROMPT = Conditioning((Prompt(torch.zeros(1, 3, 2)),))
