"""Masks by time: what is white may change from the start, what is grey from later on, what is black never."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch

from graph.builder import WorkflowBuilder
from graph.folders import Folders
from nodes.checkpoints import load_checkpoint
from nodes.denoiser import sampling_of
from nodes.differential import differential_diffusion
from nodes.engine import Engine
from nodes.latents import empty_latent, set_noise_mask
from nodes.masks import composite_masks, feather_mask, solid_mask
from nodes.maths.guidance import open_so_far
from nodes.models import DenoiseNetwork, ModelPool
from nodes.sampling import ksampler, ksampler_advanced
from nodes.text import encode_text
from nodes.trajectory import start, step
from nodes.values import Conditioning, Latent, Model, Noise, Prompt, Weights
from tests import tiny_models

MODEL = Model(Weights(Path("none"), "toy", "toy"), prediction="sample")
PROMPT = Conditioning((Prompt(torch.zeros(1, 3, 2)),))
RAMP = torch.linspace(0, 1, 8).expand(1, 1, 8, 8)
"""Black at the left, white at the right."""


class Ones(ModelPool):
    """A pool whose network takes every latent for ones."""

    def denoise_network(self, model: Model) -> DenoiseNetwork:
        return lambda x, timestep, context, told=None, residuals=None: torch.ones_like(x)


def changed(strength: float | None, timestep: float) -> torch.Tensor:
    """How much of the prediction a step from this timestep takes up, from black to white; all of it is 900 to 100."""
    model = MODEL if strength is None else differential_diffusion(MODEL, strength)
    first, sigma, last = (sampling_of(MODEL).sigma(at) for at in (900.0, timestep, 100.0))
    latent = Latent(torch.zeros(1, 4, 8, 8), noise_mask=RAMP)
    state = start(model, Noise(3), latent, "euler", sigma, 3, False, 0.0, ends=(first, last))
    after = step(Ones(device="cpu"), model, PROMPT, None, 1.0, state, sigma, last, Noise(3), latent)
    assert after.denoised is not None
    return after.denoised[0, 0, 0]


@pytest.mark.parametrize(("timestep", "left"), [(900.0, 1.0), (700.0, 0.75), (500.0, 0.5), (300.0, 0.25)])
def test_a_pixel_opens_when_no_more_is_left_than_its_mask_says(timestep: float, left: float):
    assert torch.equal(changed(1.0, timestep), (RAMP[0, 0, 0] >= left).float())


def test_strength_is_a_share_of_the_mask_by_time():
    torch.testing.assert_close(changed(0.25, 700.0), 0.25 * changed(1.0, 700.0) + 0.75 * RAMP[0, 0, 0])
    assert torch.equal(changed(0.0, 700.0), changed(1.0, 700.0))


def test_other_models_take_the_mask_for_how_much():
    torch.testing.assert_close(changed(None, 700.0), RAMP[0, 0, 0])


def test_everything_is_open_at_the_end():
    assert open_so_far(torch.zeros(3), 0.0).min() == 1.0


def test_a_mask_by_time_goes_on_after_a_stop_and_keeps_what_is_black(tmp_path: Path):
    tiny_models.write_checkpoint(tmp_path / "models" / "checkpoints" / "tiny")
    with WorkflowBuilder() as workflow:
        model, clip, _ = load_checkpoint(ckpt_name="tiny")
        shared: Any = {
            "cfg": 3.0,
            "steps": 4,
            "positive": encode_text(text="the blue cat", clip=clip),
            "negative": encode_text(text="dog", clip=clip),
        }
        by_time: Any = {"model": differential_diffusion(model=model), **shared}
        ramp = feather_mask(mask=solid_mask(width=64, height=64), left=64)
        mask = composite_masks(destination=ramp, source=solid_mask(value=0.0, width=16, height=64))
        blank = set_noise_mask(samples=empty_latent(width=64, height=64), mask=mask)
        whole: Any = ksampler(seed=3, latent_image=blank, **by_time)
        half: Any = ksampler_advanced(
            noise_seed=3, latent_image=blank, end_at_step=2, return_with_leftover_noise="enable", **by_time
        )
        rest: Any = ksampler_advanced(add_noise="disable", noise_seed=3, latent_image=half, start_at_step=2, **by_time)
        plain: Any = ksampler(seed=3, latent_image=blank, model=model, **shared)
    targets = [each.step for each in (whole, rest, plain)]
    outputs = Engine(Folders.below(tmp_path), precision="fp32").run(workflow, targets=targets).checked().outputs
    samples = [cast(Latent, outputs[target][0]).samples for target in targets]
    assert torch.equal(samples[0], samples[1]) and not torch.allclose(samples[0], samples[2])
    assert not samples[0][..., 0].any() and samples[0][..., -1].any()
