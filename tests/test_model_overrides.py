"""Networks that were trained on other noise levels, or to predict something else."""

import math
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from graph.builder import WorkflowBuilder
from graph.folders import Folders
from nodes.checkpoints import load_checkpoint
from nodes.denoiser import sampling_of
from nodes.engine import Engine
from nodes.latents import empty_latent
from nodes.model_overrides import continuous_edm, continuous_v, discrete, flow_aura, flow_flux, flow_sd3
from nodes.sampling import ksampler, ksampler_advanced
from nodes.text import encode_text
from nodes.values import FlowLevels, Latent, Model, Weights

MODEL = Model(Weights(Path("none"), "toy", "toy"))
X, OUTPUT = (torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
LEVELS = (0.01, 0.5, 3.0, 80.0)


@pytest.mark.parametrize("sigma", LEVELS)
def test_edm_is_preconditioned_as_in_diffusers(sigma: float):
    from diffusers.schedulers.scheduling_edm_euler import EDMEulerScheduler

    theirs: Any = EDMEulerScheduler(sigma_data=0.5)
    ours = sampling_of(continuous_edm(MODEL, "edm_playground_v2.5"))
    level = torch.tensor(sigma)
    torch.testing.assert_close(ours.scale_input(X, sigma), cast(Tensor, theirs.precondition_inputs(X, level)))
    torch.testing.assert_close(ours.denoised(X, OUTPUT, sigma), theirs.precondition_outputs(X, OUTPUT, level))
    assert ours.timestep(sigma) == pytest.approx(theirs.precondition_noise(level).item())


def test_edm_levels_are_even_in_the_logarithm():
    ours = sampling_of(continuous_edm(MODEL, "eps", sigma_max=80.0, sigma_min=0.002))
    assert (ours.sigma_min, ours.sigma_max) == (pytest.approx(0.002), pytest.approx(80.0))
    steps = ours.sigmas.log().diff()
    torch.testing.assert_close(steps, steps.mean().expand_as(steps), rtol=1e-2, atol=0)
    assert ours.percent_to_sigma(0.5) == pytest.approx(math.sqrt(0.002 * 80))


OTHERS = [continuous_edm(MODEL, "edm"), continuous_edm(MODEL, "cosmos_rflow"), continuous_v(MODEL)]
FLOWS = [flow_sd3(MODEL), flow_aura(MODEL), flow_flux(MODEL)]


@pytest.mark.parametrize("model", OTHERS)
@pytest.mark.parametrize("sigma", LEVELS)
def test_levels_come_back_from_timesteps(model: Model, sigma: float):
    sampling = sampling_of(model)
    assert sampling.sigma(sampling.timestep(sigma)) == pytest.approx(sigma)


@pytest.mark.parametrize("model", [MODEL, discrete(MODEL, "lcm"), *OTHERS, *FLOWS])
def test_levels_fall_with_the_share_of_the_sampling(model: Model):
    sampling = sampling_of(model)
    levels = [sampling.percent_to_sigma(at / 10) for at in range(11)]
    assert levels == sorted(levels, reverse=True)
    assert levels[0] >= sampling.sigma_max >= levels[1] and levels[-1] == 0


def test_a_network_that_is_right_is_believed_whatever_it_predicts():
    latent, noise, sigma = X, OUTPUT, 2.0
    noised = latent + sigma * noise
    root = math.sqrt(1 + sigma**2)
    velocity = (noise - sigma * latent) / root
    share = sigma / (1 + sigma)
    skip = 0.5**2 / (0.5**2 + sigma**2)  # Karras et al. (2022), table 1
    outputs = {
        discrete(MODEL, "eps"): noise,
        discrete(MODEL, "v_prediction"): velocity,
        discrete(MODEL, "x0"): latent,
        discrete(MODEL, "img_to_img"): latent,
        continuous_v(MODEL): velocity,
        continuous_edm(MODEL, "eps"): noise,
        continuous_edm(MODEL, "v_prediction"): velocity,
        continuous_edm(MODEL, "edm"): (latent - skip * noised) / (sigma * math.sqrt(skip)),
        continuous_edm(MODEL, "cosmos_rflow"): noise - latent,
    }
    for model, output in outputs.items():
        found = sampling_of(model).denoised(noised, output, sigma)
        torch.testing.assert_close(found, latent, rtol=1e-4, atol=1e-4)
    straight = (1 - share) * latent + share * noise
    for model in FLOWS:
        torch.testing.assert_close(sampling_of(model).denoised(straight, noise - latent, share), latent)


def test_lcm_knows_fifty_timesteps_and_keeps_the_boundary():
    from diffusers.schedulers.scheduling_lcm import LCMScheduler

    theirs: Any = LCMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    ours, all_of_them = sampling_of(discrete(MODEL, "lcm")), sampling_of(MODEL)
    assert len(ours.sigmas) == 50
    assert [ours.timestep(sigma.item()) for sigma in ours.sigmas] == list(range(19, 1000, 20))
    assert torch.equal(ours.sigmas, all_of_them.sigmas[19::20])
    sigma = ours.sigma(499.0)
    skip, out = theirs.get_scalings_for_boundary_condition_discrete(torch.tensor(499.0))
    expected = out * (X - sigma * OUTPUT) + skip * X
    torch.testing.assert_close(ours.denoised(X, OUTPUT, sigma), expected)


def test_fluxs_shift_grows_with_the_picture():
    small, large = (flow_flux(MODEL, width=side, height=side).levels for side in (256, 1024))
    assert isinstance(small, FlowLevels) and isinstance(large, FlowLevels)
    assert (math.log(small.shift), math.log(large.shift)) == (pytest.approx(0.5), pytest.approx(1.15))


@pytest.mark.parametrize("wrong", [lambda: continuous_edm(MODEL, sigma_max=1, sigma_min=2), lambda: flow_sd3(MODEL, 0)])
def test_levels_that_cannot_be_are_refused(wrong: Any):
    with pytest.raises(ValueError, match="expected"):
        wrong()


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_2m_sde", "sa_solver", "lcm"])
def test_two_halves_of_a_flow_are_the_whole(tmp_path: Path, sampler: Any):
    with WorkflowBuilder() as workflow:
        model, clip, _ = load_checkpoint(ckpt_name="loomlet")
        shared: Any = {
            "model": flow_sd3(model=model),
            "cfg": 2.0,
            "steps": 4,
            "sampler_name": sampler,
            "scheduler": "simple",
            "positive": encode_text(text="a red house", clip=clip),
            "negative": encode_text(text="", clip=clip),
        }
        blank = empty_latent(width=64, height=64)
        whole: Any = ksampler(seed=3, latent_image=blank, **shared)
        half: Any = ksampler_advanced(
            noise_seed=3, latent_image=blank, end_at_step=2, return_with_leftover_noise="enable", **shared
        )
        rest: Any = ksampler_advanced(add_noise="disable", noise_seed=3, latent_image=half, start_at_step=2, **shared)
    result = Engine(Folders.below(tmp_path)).run(workflow, targets=[whole.step, half.step, rest.step]).checked()
    latents = [result.outputs[each.step][0] for each in (whole, half, rest)]
    samples = [latent.samples for latent in latents if isinstance(latent, Latent)]
    assert torch.equal(samples[0], samples[2]) and samples[0].isfinite().all()
    sigma = sampling_of(flow_sd3(MODEL)).sigma(500.0)
    unfinished = latents[1].unfinished if isinstance(latents[1], Latent) else None
    assert unfinished is not None and unfinished.sigma == pytest.approx(sigma, abs=0.01)
