"""Sampling from its parts is KSampler to the last bit, shares its steps, and can stop and go on anywhere."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
import torch
from torch import Tensor

from graph.builder import WorkflowBuilder
from graph.events import Event, NodeFinished
from graph.folders import Folders
from nodes.checkpoints import load_checkpoint
from nodes.custom_sampling import basic_guider, cfg_guider, guider_parts, sampler_custom, sampler_custom_advanced
from nodes.engine import Engine
from nodes.latents import empty_latent, set_noise_mask
from nodes.masks import solid_mask
from nodes.sampling import disable_noise, ksampler, ksampler_advanced, random_noise, select_sampler
from nodes.schedules import basic_scheduler, split_sigmas
from nodes.text import encode_text
from nodes.values import Conditioning, Guider, Latent, Model, Prompt, Weights
from tests import tiny_models

STEPS, CFG, SEED = 5, 3.0, 7
Name = Literal["euler", "dpmpp_2m", "dpmpp_2m_sde", "heunpp2", "dpm_fast", "sa_solver", "res_multistep_cfg_pp"]
NAMES: tuple[Name, ...] = get_args(Name)
"""Of every kind: with history or noise, looking ahead, with levels of their own, under both prompts."""
Sampling = Callable[[Model, Conditioning, Conditioning, Latent], Latent]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    folder = tmp_path_factory.mktemp("data")
    tiny_models.write_checkpoint(folder / "models" / "checkpoints" / "tiny")
    return Folders.below(folder)


@pytest.fixture
def engine(folders: Folders) -> Iterator[Engine]:
    """Each test begins with nothing kept."""
    yield Engine(folders, precision="fp32")


def sampled(engine: Engine, sampling: Sampling, mask: float | None = None, ran: list[str] | None = None) -> Tensor:
    """The latent that a way of sampling gives; `ran` is told the nodes it took."""
    with WorkflowBuilder() as workflow:
        model, clip, _ = load_checkpoint(ckpt_name="tiny")
        blank = empty_latent(width=64, height=64)
        if mask is not None:
            blank = set_noise_mask(samples=blank, mask=solid_mask(value=mask, width=64, height=64))
        latent: Any = sampling(
            model, encode_text(text="the blue cat", clip=clip), encode_text(text="dog", clip=clip), blank
        )

    def emit(event: Event) -> None:
        if ran is not None and isinstance(event, NodeFinished):
            ran.append(event.class_name)

    result = engine.run(workflow, targets=[latent.step], emit=emit).checked()
    value = result.outputs[latent.step][latent.output]
    assert isinstance(value, Latent)
    return value.samples


def plain(name: Name = "euler", cfg: float = CFG, steps: int = STEPS, denoise: float = 1.0) -> Sampling:
    return lambda model, positive, negative, blank: ksampler(
        model=model, seed=SEED, steps=steps, cfg=cfg, sampler_name=name, scheduler="normal", positive=positive,
        negative=negative, latent_image=blank, denoise=denoise,
    )  # fmt: skip


def custom(name: Name = "euler", cfg: float = CFG, denoise: float = 1.0, denoised: bool = False) -> Sampling:
    def sample(model: Model, positive: Conditioning, negative: Conditioning, blank: Latent) -> Latent:
        sigmas = basic_scheduler(model=model, scheduler="normal", steps=STEPS, denoise=denoise)
        return sampler_custom(
            model=model, noise_seed=SEED, cfg=cfg, positive=positive, negative=negative,
            sampler=select_sampler(sampler_name=name), sigmas=sigmas, latent_image=blank,
        )[denoised]  # fmt: skip

    return sample


def advanced(name: Name = "euler", denoised: bool = False) -> Sampling:
    def sample(model: Model, positive: Conditioning, negative: Conditioning, blank: Latent) -> Latent:
        return sampler_custom_advanced(
            noise=random_noise(noise_seed=SEED),
            guider=cfg_guider(model=model, positive=positive, negative=negative, cfg=CFG),
            sampler=select_sampler(sampler_name=name),
            sigmas=basic_scheduler(model=model, scheduler="normal", steps=STEPS),
            latent_image=blank,
        )[denoised]

    return sample


def stretches(name: Name, *cuts: int) -> Sampling:
    """SamplerCustomAdvanced over each part of a schedule that is cut at these steps."""

    def sample(model: Model, positive: Conditioning, negative: Conditioning, blank: Latent) -> Latent:
        guider = cfg_guider(model=model, positive=positive, negative=negative, cfg=CFG)
        noise, latent, done = random_noise(noise_seed=SEED), blank, 0
        left = basic_scheduler(model=model, scheduler="normal", steps=STEPS)
        for cut in (*cuts, None):
            high, left = (left, left) if cut is None else split_sigmas(sigmas=left, step=cut - done)
            latent = sampler_custom_advanced(
                noise=noise, guider=guider, sampler=select_sampler(sampler_name=name), sigmas=high, latent_image=latent
            ).output
            noise, done = disable_noise(), cut or 0
        return latent

    return sample


@pytest.mark.parametrize("name", NAMES)
def test_both_ways_of_custom_sampling_are_ksampler(engine: Engine, name: Name) -> None:
    expected = sampled(engine, plain(name))
    assert torch.equal(sampled(engine, custom(name)), expected)
    assert torch.equal(sampled(engine, advanced(name)), expected)


def test_sampler_custom_after_ksampler_runs_no_step(engine: Engine) -> None:
    ran: list[str] = []
    sampled(engine, plain("dpmpp_2m"), ran=ran)
    assert ran.count("SamplerStepBetween") == STEPS
    ran.clear()
    sampled(engine, custom("dpmpp_2m"), ran=ran)
    assert "SamplerCustom" in ran
    assert not {"SamplerStartAt", "SamplerStepBetween", "SamplerEnd", "RandomNoise"} & set(ran)


def test_partial_denoising_is_that_of_ksampler(engine: Engine) -> None:
    ran: list[str] = []
    expected = sampled(engine, plain(denoise=0.5))
    assert torch.equal(sampled(engine, custom(denoise=0.5), ran=ran), expected)
    assert "SamplerStepBetween" not in ran


def test_a_soft_mask_is_kept_as_by_ksampler(engine: Engine) -> None:
    expected = sampled(engine, plain(), mask=0.5)
    assert torch.equal(sampled(engine, custom(), mask=0.5), expected)
    assert torch.equal(sampled(engine, advanced(), mask=0.5), expected)
    assert not torch.equal(expected, sampled(engine, plain()))


def test_basic_guider_is_cfg_1(engine: Engine) -> None:
    def basic(model: Model, positive: Conditioning, negative: Conditioning, blank: Latent) -> Latent:
        return sampler_custom_advanced(
            noise=random_noise(noise_seed=SEED),
            guider=basic_guider(model=model, conditioning=positive),
            sampler=select_sampler(),
            sigmas=basic_scheduler(model=model, scheduler="normal", steps=STEPS),
            latent_image=blank,
        ).output

    ran: list[str] = []
    guided = sampled(engine, basic, ran=ran)
    assert ran.count("CLIPTextEncode") == 1
    assert torch.equal(guided, sampled(engine, plain(cfg=1.0)))
    assert not torch.equal(guided, sampled(engine, plain()))


def test_a_guider_comes_apart_again() -> None:
    prompt, other = (Conditioning((Prompt(torch.zeros(1, 3, 2)),)) for _ in range(2))
    model = Model(Weights(Path("none"), "toy", "toy"))
    assert guider_parts(Guider(model, prompt, other, 4.0)) == (model, prompt, other)
    assert guider_parts(basic_guider(model, prompt)).negative.prompts == ()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cuts", [(2,), (1, 3), (0,), (STEPS,)], ids=str)
def test_stretches_of_a_schedule_are_the_whole(engine: Engine, name: Name, cuts: tuple[int, ...]) -> None:
    assert torch.equal(sampled(engine, stretches(name, *cuts)), sampled(engine, advanced(name)))


def test_stretches_of_a_schedule_are_the_whole_under_a_soft_mask(engine: Engine) -> None:
    expected = sampled(engine, advanced("dpmpp_2m_sde"), mask=0.5)
    assert torch.equal(sampled(engine, stretches("dpmpp_2m_sde", 2), mask=0.5), expected)


@pytest.mark.parametrize("name", NAMES)
def test_leftover_noise_is_that_of_ksampler_advanced(engine: Engine, name: Name) -> None:
    def theirs(model: Model, positive: Conditioning, negative: Conditioning, blank: Latent) -> Latent:
        return ksampler_advanced(
            model=model, noise_seed=SEED, steps=STEPS, cfg=CFG, sampler_name=name, scheduler="normal",
            positive=positive, negative=negative, latent_image=blank, end_at_step=2,
            return_with_leftover_noise="enable",
        )  # fmt: skip

    def ours(model: Model, positive: Conditioning, negative: Conditioning, blank: Latent) -> Latent:
        whole = basic_scheduler(model=model, scheduler="normal", steps=STEPS)
        return sampler_custom(
            model=model, noise_seed=SEED, cfg=CFG, positive=positive, negative=negative,
            sampler=select_sampler(sampler_name=name), sigmas=split_sigmas(sigmas=whole, step=2).high_sigmas,
            latent_image=blank,
        ).output  # fmt: skip

    assert torch.equal(sampled(engine, ours), sampled(engine, theirs))


def test_the_denoised_output_is_where_a_jump_to_the_end_would_arrive(engine: Engine) -> None:
    """With euler: a step from any level to 0 ends on the prediction."""

    def jump(model: Model, positive: Conditioning, negative: Conditioning, blank: Latent) -> Latent:
        return ksampler_advanced(
            model=model, noise_seed=SEED, steps=STEPS, cfg=CFG, scheduler="normal", positive=positive,
            negative=negative, latent_image=blank, end_at_step=2,
        )  # fmt: skip

    def stop(model: Model, positive: Conditioning, negative: Conditioning, blank: Latent) -> Latent:
        whole = basic_scheduler(model=model, scheduler="normal", steps=STEPS)
        return sampler_custom(
            model=model, noise_seed=SEED, cfg=CFG, positive=positive, negative=negative, sampler=select_sampler(),
            sigmas=split_sigmas(sigmas=whole, step=2).high_sigmas, latent_image=blank,
        ).denoised_output  # fmt: skip

    torch.testing.assert_close(sampled(engine, stop), sampled(engine, jump))


@pytest.mark.parametrize("denoised", [False, True])
def test_at_the_end_both_outputs_are_the_picture(engine: Engine, denoised: bool) -> None:
    expected = sampled(engine, plain("dpmpp_2m"))
    torch.testing.assert_close(sampled(engine, custom("dpmpp_2m", denoised=denoised)), expected)
    torch.testing.assert_close(sampled(engine, advanced("dpmpp_2m", denoised=denoised)), expected)


def test_without_added_noise_a_latent_is_taken_for_noisy_already(engine: Engine) -> None:
    def theirs(model: Model, positive: Conditioning, negative: Conditioning, blank: Latent) -> Latent:
        return ksampler_advanced(
            model=model, add_noise="disable", noise_seed=SEED, steps=STEPS, cfg=CFG, scheduler="normal",
            positive=positive, negative=negative, latent_image=blank, start_at_step=2,
        )  # fmt: skip

    def ours(model: Model, positive: Conditioning, negative: Conditioning, blank: Latent) -> Latent:
        whole = basic_scheduler(model=model, scheduler="normal", steps=STEPS)
        return sampler_custom(
            model=model, add_noise=False, noise_seed=SEED, cfg=CFG, positive=positive, negative=negative,
            sampler=select_sampler(), sigmas=split_sigmas(sigmas=whole, step=2).low_sigmas, latent_image=blank,
        ).output  # fmt: skip

    ran: list[str] = []
    expected = sampled(engine, theirs)
    assert torch.equal(sampled(engine, ours, ran=ran), expected)
    assert "SamplerStepBetween" not in ran


def test_without_levels_the_latent_stays_as_it_is(engine: Engine) -> None:
    assert torch.equal(sampled(engine, custom(denoise=0.0)), torch.zeros(1, 4, 8, 8))


def test_another_sampler_takes_the_guider_that_is_there(engine: Engine) -> None:
    ran: list[str] = []
    sampled(engine, advanced(), ran=ran)
    ran.clear()
    sampled(engine, advanced("dpmpp_2m"), ran=ran)
    assert not {"CLIPTextEncode", "CFGGuider", "GuiderParts"} & set(ran)
    assert ran.count("SamplerStepBetween") == STEPS
