"""Guiders of three prompts: their formulas, and that SamplerCustomAdvanced samples with them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from graph.builder import WorkflowBuilder
from graph.events import Event, NodeFinished
from graph.folders import Folders
from nodes.checkpoints import load_checkpoint
from nodes.custom_sampling import (
    add_noise,
    cfg_guider,
    dual_cfg_guider,
    guider_third,
    perp_neg_guider,
    sampler_custom_advanced,
)
from nodes.denoiser import guided_denoiser
from nodes.engine import Engine
from nodes.guidance import epsilon_scaling, fresca
from nodes.latent_scale import for_vae
from nodes.latents import empty_latent
from nodes.maths.noise import initial_noise
from nodes.models import DenoiseNetwork, ModelPool
from nodes.sampling import disable_noise, random_noise, select_sampler
from nodes.schedules import basic_scheduler, split_sigmas
from nodes.text import encode_text
from nodes.values import Conditioning, Guider, Latent, Model, Noise, Prompt, Sigmas, Weights
from tests import tiny_models

MODEL = Model(Weights(Path("none"), "toy", "toy"), prediction="sample")
X = torch.zeros(2, 4, 8, 8)
POSITIVE, OTHER, NEGATIVE = (torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(at)) for at in range(3))


class Told(ModelPool):
    """A pool whose network gives the three latents, by the number that a prompt is, and notes how it is asked."""

    def __init__(self) -> None:
        super().__init__(device="cpu")
        self.passes: list[int] = []

    def denoise_network(self, model: Model) -> DenoiseNetwork:
        def predict(x: Tensor, timestep: Tensor, context: Tensor, *more: object) -> Tensor:
            numbers = [int(number) for number in context.mean((1, 2))[::2]]
            self.passes.append(len(numbers))
            return torch.cat([(POSITIVE, OTHER, NEGATIVE)[number] for number in numbers])

        return predict


def prompt(number: int) -> Conditioning:
    return Conditioning((Prompt(torch.full((1, 3, 2), float(number))),))


def predicted(guider: Guider, pool: Told | None = None) -> Tensor:
    args = guider.model, guider.positive, guider.negative, guider.cfg, len(X)
    return guided_denoiser(pool or Told(), *args, third=guider.third)(X, 3.0)


def dual(style: Any, cfg: float = 4.0, other: float = 1.5, model: Model = MODEL) -> Guider:
    return dual_cfg_guider(model, prompt(0), prompt(1), prompt(2), cfg, other, style)


def perp_neg(scale: float = 0.5, model: Model = MODEL) -> Guider:
    return perp_neg_guider(model, prompt(0), prompt(2), prompt(1), 4.0, scale)


def test_dual_guidance_adds_up_two_guidances_in_one_pass():
    pool = Told()
    expected = NEGATIVE + 1.5 * (OTHER - NEGATIVE) + 4.0 * (POSITIVE - OTHER)
    torch.testing.assert_close(predicted(dual("regular"), pool), expected)
    assert pool.passes == [3]


def test_dual_guidance_at_scale_one_does_not_ask_for_the_negative_prompt():
    pool = Told()
    torch.testing.assert_close(predicted(dual("regular", other=1.0), pool), OTHER + 4.0 * (POSITIVE - OTHER))
    assert pool.passes == [2]


def test_nested_guidance_guides_what_was_guided():
    inner = OTHER + 4.0 * (POSITIVE - OTHER)
    torch.testing.assert_close(predicted(dual("nested")), NEGATIVE + 1.5 * (inner - NEGATIVE))


def test_a_negative_prompt_counts_only_across_the_positive_one():
    wanted, unwanted = POSITIVE - OTHER, NEGATIVE - OTHER
    away = (OTHER - predicted(perp_neg())) / 4.0 + wanted  # half of what is across
    torch.testing.assert_close((away * wanted).sum((1, 2, 3)), torch.zeros(2), atol=1e-3, rtol=0)
    along = unwanted - 2.0 * away
    cosines = torch.cosine_similarity(along.flatten(1), wanted.flatten(1)).abs()
    torch.testing.assert_close(cosines, torch.ones(2))


def test_rules_after_guidance_apply_to_three_prompts_and_rules_before_do_not():
    late, early = epsilon_scaling(MODEL, 1.25), fresca(MODEL, 3.0, 3.0)
    torch.testing.assert_close(predicted(perp_neg(model=late)), predicted(perp_neg()) / 1.25)
    for guider, plain in ((perp_neg(model=early), perp_neg()), (dual("nested", model=early), dual("nested"))):
        torch.testing.assert_close(predicted(guider), predicted(plain))


def test_a_guider_of_two_prompts_has_no_third():
    with pytest.raises(ValueError, match="no third prompt"):
        guider_third(cfg_guider(MODEL, prompt(0), prompt(1)))


def test_noise_is_added_as_far_as_the_levels_reach():
    latent = Latent(POSITIVE)
    noise = for_vae(MODEL, initial_noise((2, 4, 8, 8), 5))
    for levels, amount in (((3.0, 2.0, 0.5), 2.5), ((3.0,), 3.0), ((0.5, 3.0), 2.5)):
        noisy = add_noise(MODEL, Noise(5), Sigmas(levels), latent).samples
        torch.testing.assert_close(noisy, POSITIVE + amount * noise, rtol=1e-4, atol=1e-4)
    assert add_noise(MODEL, Noise(5), Sigmas(()), latent) is latent


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    folder = tmp_path_factory.mktemp("data")
    tiny_models.write_checkpoint(folder / "models" / "checkpoints" / "tiny")
    return Folders.below(folder)


@pytest.fixture
def engine(folders: Folders) -> Iterator[Engine]:
    yield Engine(folders, precision="fp32")


Make = Callable[[Model, Conditioning, Conditioning, Conditioning], Guider]


def three_prompts(model: Model, one: Conditioning, two: Conditioning, away: Conditioning) -> Guider:
    return dual_cfg_guider(model=model, cond1=one, cond2=two, negative=away, cfg_conds=3.0, cfg_cond2_negative=2.0)


def perpendicular(model: Model, one: Conditioning, two: Conditioning, away: Conditioning) -> Guider:
    return perp_neg_guider(model=model, positive=one, negative=away, empty_conditioning=two, cfg=3.0)


def sampled(engine: Engine, guide: Make, sampler: Any, cut: int | None = None, ran: list[str] | None = None) -> Tensor:
    """The latent of four steps, in one stretch or two; `ran` is told the nodes it took."""
    with WorkflowBuilder() as workflow:
        model, clip, _ = load_checkpoint(ckpt_name="tiny")
        guider = guide(model, *(encode_text(text=text, clip=clip) for text in ("the blue cat", "", "dog")))
        left = basic_scheduler(model=model, scheduler="normal", steps=4)
        latent, noise = empty_latent(width=64, height=64), random_noise(noise_seed=7)
        for at in (cut, None) if cut else (None,):
            high, left = split_sigmas(sigmas=left, step=at) if at else (left, left)
            latent = sampler_custom_advanced(
                noise=noise, guider=guider, sampler=select_sampler(sampler_name=sampler), sigmas=high,
                latent_image=latent,
            ).output  # fmt: skip
            noise = disable_noise()
    step: Any = latent

    def emit(event: Event) -> None:
        if ran is not None and isinstance(event, NodeFinished):
            ran.append(event.class_name)

    value = engine.run(workflow, targets=[step.step], emit=emit).checked().outputs[step.step][step.output]
    assert isinstance(value, Latent)
    return value.samples


@pytest.mark.parametrize("guide", [three_prompts, perpendicular], ids=["dual", "perp_neg"])
@pytest.mark.parametrize("sampler", ["dpmpp_2m", "euler_ancestral_cfg_pp"])
def test_sampling_with_three_prompts_can_stop_go_on_and_shares_steps(engine: Engine, guide: Make, sampler: str):
    whole = sampled(engine, guide, sampler)
    ran: list[str] = []
    assert torch.equal(sampled(engine, guide, sampler, cut=2, ran=ran), whole)
    assert ran.count("SamplerStepBetween") == 2  # the first stretch is known
    assert whole.isfinite().all()


def test_the_third_prompt_is_part_of_the_picture(engine: Engine):
    two = sampled(engine, lambda model, one, two, away: cfg_guider(model=model, positive=one, negative=away), "euler")
    assert not torch.allclose(two, sampled(engine, perpendicular, "euler"))
    assert not torch.allclose(sampled(engine, three_prompts, "euler"), sampled(engine, perpendicular, "euler"))
