"""The noise levels of a network against diffusers', and what its output means."""

import math

import pytest
import torch
from torch import Tensor

from nodes.maths.continuous_sampling import ContinuousSampling
from nodes.maths.model_sampling import DiscreteSampling, Prediction

SD1 = DiscreteSampling()


def alphas_cumprod(schedule: str, zero_terminal_snr: bool = False) -> Tensor:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule=schedule, rescale_betas_zero_snr=zero_terminal_snr
    ).alphas_cumprod.double()


@pytest.mark.parametrize("schedule", ["scaled_linear", "linear"])
def test_the_table_is_that_of_diffusers(schedule: str) -> None:
    alpha_bar = alphas_cumprod(schedule)
    ours = DiscreteSampling(schedule=schedule).sigmas  # pyright: ignore[reportArgumentType]  # one of two names
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), ((1 - alpha_bar) / alpha_bar).sqrt(), rtol=1e-4, atol=0)


def test_zero_terminal_snr_is_that_of_diffusers_but_for_the_last() -> None:
    alpha_bar = alphas_cumprod("scaled_linear", zero_terminal_snr=True)[:-1]
    ours = DiscreteSampling(zero_terminal_snr=True).sigmas
    torch.testing.assert_close(ours[:-1].double(), ((1 - alpha_bar) / alpha_bar).sqrt(), rtol=1e-3, atol=0)
    assert ours[-1].item() == pytest.approx(math.sqrt(1 / 4.8973451890853435e-08 - 1))


def test_the_ends_of_stable_diffusion_1() -> None:
    assert SD1.sigma_min == pytest.approx(0.029167, abs=1e-6)
    assert SD1.sigma_max == pytest.approx(14.614642, abs=1e-6)


def test_timesteps_and_sigmas_are_inverse() -> None:
    assert [SD1.timestep(SD1.sigma(t)) for t in range(0, 1000, 37)] == list(range(0, 1000, 37))
    assert SD1.sigma(500) == SD1.sigmas[500].item()
    assert SD1.sigma(500.5) == pytest.approx(math.sqrt(SD1.sigma(500) * SD1.sigma(501)))


def test_timesteps_beyond_the_table_are_its_ends() -> None:
    assert (SD1.timestep(0.0), SD1.timestep(1e-9), SD1.timestep(1e9)) == (0, 0, 999)
    assert (SD1.sigma(-3), SD1.sigma(5000)) == pytest.approx((SD1.sigma_min, SD1.sigma_max))


def test_percent_runs_from_above_every_sigma_to_none() -> None:
    assert [SD1.percent_to_sigma(p) for p in (-1.0, 0.0, 1.0, 2.0)] == [999999999.9, 999999999.9, 0.0, 0.0]
    assert SD1.percent_to_sigma(0.25) == SD1.sigma(0.75 * 999)


@pytest.mark.parametrize("sigma", [0.03, 1.0, 14.6])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_perfect_network_finds_the_latent(prediction: Prediction, sigma: float) -> None:
    """With x / sqrt(1 + sigma^2) = cos * latent + sin * noise, the velocity is cos * noise - sin * latent."""
    latent, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()
    cos, sin = 1 / math.sqrt(1 + sigma**2), sigma / math.sqrt(1 + sigma**2)
    output = {"epsilon": noise, "v_prediction": cos * noise - sin * latent, "sample": latent}[prediction]
    sampling = DiscreteSampling(prediction=prediction)
    x = sampling.noise_scaling(sigma, noise, latent)
    torch.testing.assert_close(sampling.scale_input(x, sigma), cos * latent + sin * noise)
    torch.testing.assert_close(sampling.denoised(x, output, sigma), latent, rtol=1e-4, atol=1e-5)


def test_pure_noise_starts_at_the_variance_of_training() -> None:
    noise, latent = torch.ones(1, 4, 2, 2), torch.full((1, 4, 2, 2), 0.5)
    assert SD1.noise_scaling(3.0, noise, latent)[0, 0, 0, 0].item() == 3.5
    assert SD1.noise_scaling(3.0, noise, latent, max_denoise=True)[0, 0, 0, 0].item() == pytest.approx(0.5 + 10**0.5)


def test_a_flow_scaled_up_starts_at_its_level_from_pure_noise_too() -> None:
    noise, latent = torch.ones(1, 4, 2, 2), torch.full((1, 4, 2, 2), 0.5)
    cosmos = ContinuousSampling(prediction="cosmos_rflow", time="share")
    assert cosmos.noise_scaling(3.0, noise, latent, max_denoise=True)[0, 0, 0, 0].item() == 3.5


def test_max_denoise_is_a_start_at_or_above_the_highest_sigma() -> None:
    top = SD1.sigma_max
    starts = [top, top * (1 - 5e-6), top + 1, top * (1 - 2e-5), 1.0]
    assert [SD1.is_max_denoise(torch.tensor([start, 0.0])) for start in starts] == [True, True, True, False, False]
    assert not SD1.is_max_denoise(torch.empty(0))


def test_bad_tables_are_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        DiscreteSampling(beta_end=1.5)
    with pytest.raises(ValueError, match="at least 2 steps"):
        DiscreteSampling(steps=0)
    with pytest.raises(ValueError, match="unknown prediction 'flow'"):
        DiscreteSampling(prediction="flow")
    with pytest.raises(ValueError, match="unknown beta schedule 'cosine'"):
        DiscreteSampling(schedule="cosine")  # pyright: ignore[reportArgumentType]  # the mistake that is tested
