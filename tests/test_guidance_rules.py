"""Rules of guidance as their formulas say, applied in order, and remembered from step to step."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from graph.builder import WorkflowBuilder
from graph.folders import Folders
from nodes.checkpoints import load_checkpoint
from nodes.denoiser import guided_denoiser, sampling_of
from nodes.engine import Engine
from nodes.guidance import (
    apg,
    cfg_norm,
    cfg_zero_star,
    epsilon_scaling,
    fresca,
    guided_by,
    mahiro,
    rescale_cfg,
    tcfg,
)
from nodes.latent_operations import apply_operation, apply_operation_to_guidance, sharpen, tone_map
from nodes.latents import empty_latent
from nodes.maths.guidance import guide
from nodes.models import DenoiseNetwork, ModelPool
from nodes.rules import Evaluation, GuidanceRule, Memory
from nodes.sampling import ksampler, ksampler_advanced
from nodes.text import encode_text
from nodes.values import Conditioning, Latent, Model, Prompt, Weights
from tests import tiny_models

MODEL = Model(Weights(Path("none"), "toy", "toy"), prediction="v_prediction")
SCALE, SIGMA = 5.0, 3.0
X, COND, UNCOND = (torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(3))


class Told(ModelPool):
    """A pool whose network predicts the velocities of the denoised latents that it was told, by the prompt's number."""

    def __init__(self, *denoised: Tensor) -> None:
        super().__init__(device="cpu")
        self.denoised = denoised

    def denoise_network(self, model: Model) -> DenoiseNetwork:
        def predict(x: Tensor, timestep: Tensor, context: Tensor, *more: object) -> Tensor:
            told = [self.denoised[int(number)] for number in context.mean((1, 2))[:: len(self.denoised[0])]]
            sampling = sampling_of(model)
            sigma = sampling.sigma(timestep[0].item())
            root = (1 + sigma**2) ** 0.5
            return torch.cat([(X / root**2 - each) * root / sigma for each in told])

        return predict


def prompt(number: int) -> Conditioning:
    return Conditioning((Prompt(torch.full((1, 3, 2), float(number))),))


def guided(model: Model, scale: float = SCALE, memory: dict[GuidanceRule, Memory] | None = None) -> Tensor:
    sigma = sampling_of(MODEL).sigma(700.0)
    denoise = guided_denoiser(Told(COND, UNCOND), model, prompt(0), prompt(1), scale, len(X), memory=memory)
    return denoise(X, sigma)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((1, 2, 3), keepdim=True)


PLAIN = guide(COND, UNCOND, SCALE)
RULES = {
    "RescaleCFG": rescale_cfg(MODEL),
    "CFGZeroStar": cfg_zero_star(MODEL).patched_model,
    "CFGNorm": cfg_norm(MODEL).patched_model,
    "TCFG": tcfg(MODEL).patched_model,
    "Mahiro": mahiro(MODEL).patched_model,
    "FreSca": fresca(MODEL, freq_cutoff=2),
    "Epsilon Scaling": epsilon_scaling(MODEL),
    "APG": apg(MODEL, eta=0.3),
    "Tonemap": apply_operation_to_guidance(MODEL, tone_map()),
    "Sharpen": apply_operation_to_guidance(MODEL, sharpen(sharpen_radius=2)),
}


def test_without_rules_it_is_plain_guidance():
    close(guided(MODEL), PLAIN)


@pytest.mark.parametrize("multiplier", [0.0, 0.7, 1.0])
def test_rescaled_velocities_are_those_of_diffusers(multiplier: float):
    from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion

    theirs = cast(Any, pipeline_stable_diffusion).rescale_noise_cfg
    sampling = sampling_of(MODEL)
    sigma = sampling.sigma(700.0)
    root = (1 + sigma**2) ** 0.5
    v, away = ((X / root**2 - denoised) * root / sigma for denoised in (COND, UNCOND))
    rescaled = theirs(guide(v, away, SCALE), v, guidance_rescale=multiplier)
    close(guided(rescale_cfg(MODEL, multiplier)), sampling.denoised(X, rescaled, sigma))


def test_zero_star_fits_the_negative_prediction_before_it_guides():
    fit = dot(X - COND, X - UNCOND) / dot(X - UNCOND, X - UNCOND)
    close(guided(RULES["CFGZeroStar"]), guide(COND, fit * UNCOND, SCALE))


def test_no_vector_gets_longer_than_without_guidance():
    lengths = guided(RULES["CFGNorm"]).square().sum(1), COND.square().sum(1), PLAIN.square().sum(1)
    close(lengths[0], torch.minimum(lengths[1], lengths[2]))
    close(guided(cfg_norm(MODEL, 2.0).patched_model), 2.0 * guided(RULES["CFGNorm"]))


def test_the_negative_prediction_keeps_what_lies_along_the_first_singular_vector():
    rows = torch.stack([X - UNCOND, X - COND], dim=1).flatten(2)
    first = cast(Any, torch.linalg).svd(rows, full_matrices=False).Vh[:, :1]
    along = ((rows[:, :1] @ first.mT) @ first).reshape(X.shape)
    close(guided(RULES["TCFG"]), guide(COND, X - along, SCALE))


def test_mahiro_leaves_guidance_where_both_agree_and_drops_it_where_they_oppose():
    def by(cond: Tensor, uncond: Tensor) -> Tensor:
        denoise = guided_denoiser(Told(cond, uncond), RULES["Mahiro"], prompt(0), prompt(1), SCALE, len(X))
        return denoise(X, sampling_of(MODEL).sigma(700.0))

    close(by(COND, COND), COND * (1.0 * 4 + SCALE * 0) / 4)
    close(by(COND, -COND), SCALE * COND)


def test_fresca_scales_what_guidance_adds_by_frequency():
    flat, checks = torch.full_like(X, 2.0), torch.ones_like(X)
    checks[..., ::2, 1::2] = checks[..., 1::2, ::2] = -1.0
    model = fresca(MODEL, scale_low=0.5, scale_high=3.0, freq_cutoff=2)
    denoise = guided_denoiser(Told(flat + checks, 0 * X), model, prompt(0), prompt(1), SCALE, len(X))
    close(denoise(X, sampling_of(MODEL).sigma(700.0)), SCALE * (0.5 * flat + 3.0 * checks))


def test_epsilon_scaling_takes_less_noise_away():
    close(X - guided(epsilon_scaling(MODEL, 1.25)), (X - PLAIN) / 1.25)


@pytest.mark.parametrize(("eta", "threshold"), [(1.0, 0.0), (0.0, 0.0), (0.3, 2.5), (-1.0, 50.0)])
def test_projected_guidance_is_that_of_diffusers(eta: float, threshold: float):
    from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance

    buffer: Any = MomentumBuffer(-0.5)
    memory: dict[GuidanceRule, Memory] = {}
    for _ in range(3):
        args = (COND, UNCOND, SCALE, buffer, eta, threshold, True)
        close(guided(apg(MODEL, eta, threshold, -0.5), memory=memory), cast(Any, normalized_guidance)(*args))


def test_momentum_ends_where_the_noise_level_rises():
    model, memory = apg(MODEL, norm_threshold=0.0, momentum=0.5), dict[GuidanceRule, Memory]()
    denoise = guided_denoiser(Told(COND, UNCOND), model, prompt(0), prompt(1), SCALE, len(X), memory=memory)
    low, high = (sampling_of(MODEL).sigma(timestep) for timestep in (500.0, 700.0))
    first = denoise(X, high)
    assert not torch.allclose(denoise(X, high), first)
    denoise(X, low)
    close(denoise(X, high), first)


def test_the_tone_map_shortens_long_vectors_most():
    latent = Latent(torch.cat([COND, 10 * COND[:1]]))
    samples = apply_operation(latent, tone_map()).samples
    before, after = (each.square().sum(1).sqrt() for each in (latent.samples, samples))
    top = before.mean((1, 2), keepdim=True) + 5 * before.flatten(1).std(1)[:, None, None]
    close(after, before / (1 + before / top))
    close(torch.cosine_similarity(samples, latent.samples), torch.ones_like(before))


def test_sharpening_leaves_the_lengths_of_what_is_even_alone():
    even = Latent(COND.mean((2, 3), keepdim=True).expand(COND.shape))
    close(apply_operation(even, sharpen()).samples, even.samples)
    edge = torch.ones(1, 4, 1, 16)
    edge[..., 8:] = -1.0
    sharper = apply_operation(Latent(edge), sharpen(sharpen_radius=2, alpha=0.2)).samples
    assert sharper[0, 0, 0, 7] > 1.1 and sharper[0, 0, 0, 8] < -1.1
    close(sharper[..., [0, 15]], edge[..., [0, 15]])


@pytest.mark.parametrize("name", RULES)
def test_a_picture_does_not_depend_on_its_neighbours(name: str):
    class Second(Told):
        """The second picture alone."""

        def denoise_network(self, model: Model) -> DenoiseNetwork:
            whole = Told(COND, UNCOND).denoise_network(model)

            def predict(x: Tensor, timestep: Tensor, context: Tensor, *more: object) -> Tensor:
                return whole(x.repeat(2, 1, 1, 1), timestep.repeat(2), context.repeat_interleave(2, 0))[1::2]

            return predict

    denoise = guided_denoiser(Second(), RULES[name], prompt(0), prompt(1), SCALE, 1)
    close(denoise(X[1:], sampling_of(MODEL).sigma(700.0)), guided(RULES[name])[1:])


@pytest.mark.parametrize("name", RULES)
def test_every_rule_changes_guidance_and_stands_a_scale_of_one(name: str):
    assert not torch.allclose(guided(RULES[name]), PLAIN)
    assert guided(RULES[name], scale=1.0).isfinite().all()


def test_the_last_formula_counts_and_what_comes_before_and_after_it_adds_up():
    frequencies = fresca(MODEL, 2.0, 2.0, 2)  # C - U doubled, whatever its frequency
    chained = epsilon_scaling(rescale_cfg(rescale_cfg(frequencies, 1.0), 0.0), 1.25)
    close(X - guided(chained), (X - guide(COND, UNCOND, 2 * SCALE)) / 1.25)


class Negative(GuidanceRule):
    """Gives the negative prediction alone."""

    needs_uncond = True

    def after(self, found: Evaluation, guided: "Any") -> "Any":
        return found.uncond


def test_a_rule_that_needs_the_negative_prediction_gets_it_at_any_scale():
    close(guided(guided_by(MODEL, Negative()), scale=1.0), UNCOND)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("data")
    tiny_models.write_checkpoint(folder / "models" / "checkpoints" / "tiny")
    return Engine(Folders.below(folder), precision="fp32")


def test_momentum_goes_on_after_a_stop(engine: Engine):
    with WorkflowBuilder() as workflow:
        model, clip, _ = load_checkpoint(ckpt_name="tiny")
        shared: Any = {
            "model": apg(model=model, momentum=-0.75, norm_threshold=0.5),
            "cfg": 6.0,
            "steps": 4,
            "sampler_name": "dpmpp_2m",
            "positive": encode_text(text="the blue cat", clip=clip),
            "negative": encode_text(text="dog", clip=clip),
        }
        blank = empty_latent(width=64, height=64)
        whole: Any = ksampler(seed=3, latent_image=blank, **shared)
        half: Any = ksampler_advanced(
            noise_seed=3, latent_image=blank, end_at_step=2, return_with_leftover_noise="enable", **shared
        )
        rest: Any = ksampler_advanced(add_noise="disable", noise_seed=3, latent_image=half, start_at_step=2, **shared)
        plain: Any = ksampler(seed=3, latent_image=blank, **(shared | {"model": model}))
    targets = [each.step for each in (whole, rest, plain)]
    outputs = engine.run(workflow, targets=targets).checked().outputs
    samples = [cast(Latent, outputs[target][0]).samples for target in targets]
    assert torch.equal(samples[0], samples[1]) and not torch.allclose(samples[0], samples[2])


def test_an_unchanged_model_keeps_its_name_and_a_rule_is_part_of_it():
    assert rescale_cfg(MODEL) == rescale_cfg(MODEL) != rescale_cfg(MODEL, 0.5)
    assert replace(rescale_cfg(MODEL), guidance=()) == MODEL
