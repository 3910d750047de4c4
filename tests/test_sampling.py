from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from graph.builder import WorkflowBuilder
from graph.events import Event, NodeFinished
from graph.folders import Folders
from nodes.checkpoints import load_checkpoint
from nodes.engine import EXAMPLES as PICTURES
from nodes.engine import Engine
from nodes.latents import empty_latent, set_noise_mask
from nodes.masks import solid_mask
from nodes.maths.samplers import SAMPLERS
from nodes.maths.schedules import SCHEDULES
from nodes.sampling import (
    SamplerName,
    end,
    ksampler,
    ksampler_advanced,
    random_noise,
    select_sampler,
    start,
    step,
)
from nodes.schedules import SchedulerName, basic_scheduler
from nodes.text import encode_text
from nodes.values import Conditioning, Latent, Model

STEPS = 6
NAMES: tuple[SamplerName, ...] = get_args(SamplerName)


def engine(folder: Path) -> Engine:
    return Engine(Folders.below(folder, examples=PICTURES), precision="fp32")


Sampling = Callable[[Model, Conditioning, Conditioning, Latent], Latent]


def sampled(
    used: Engine, sampling: Sampling, masked: bool = False, emit: Callable[[Event], None] | None = None
) -> Tensor:
    """The latent that a way of sampling gives for one prompt."""
    with WorkflowBuilder() as workflow:
        model, clip, _ = load_checkpoint(ckpt_name="loomlet")
        blank = empty_latent(width=64, height=64)
        if masked:
            blank = set_noise_mask(samples=blank, mask=solid_mask(value=0.5, width=64, height=64))
        positive, negative = (encode_text(text=text, clip=clip) for text in ("a red house", ""))
        latent: Any = sampling(model, positive, negative, blank)
    result = used.run(workflow, targets=[latent.step], emit=emit or (lambda event: None)).checked()
    (value,) = result.outputs[latent.step]
    assert isinstance(value, Latent)
    return value.samples


def whole(name: SamplerName) -> Sampling:
    return lambda model, positive, negative, blank: ksampler(
        model=model, seed=5, steps=STEPS, cfg=3.0, sampler_name=name, scheduler="normal", positive=positive,
        negative=negative, latent_image=blank,
    )  # fmt: skip


def halves(name: SamplerName) -> Sampling:
    def sample(model: Model, positive: Conditioning, negative: Conditioning, blank: Latent) -> Latent:
        first = ksampler_advanced(
            model=model, noise_seed=5, steps=STEPS, cfg=3.0, sampler_name=name, scheduler="normal", positive=positive,
            negative=negative, latent_image=blank, end_at_step=3, return_with_leftover_noise="enable",
        )  # fmt: skip
        return ksampler_advanced(
            model=model, add_noise="disable", noise_seed=5, steps=STEPS, cfg=3.0, sampler_name=name,
            scheduler="normal", positive=positive, negative=negative, latent_image=first, start_at_step=3,
        )  # fmt: skip

    return sample


def step_by_step(name: SamplerName, scheduler: SchedulerName = "normal") -> Sampling:
    def sample(model: Model, positive: Conditioning, negative: Conditioning, blank: Latent) -> Latent:
        noise = random_noise(noise_seed=5)
        sigmas = basic_scheduler(model=model, scheduler=scheduler, steps=STEPS)
        sampler = select_sampler(sampler_name=name)
        state = start(model=model, noise=noise, sampler=sampler, sigmas=sigmas, latent_image=blank)
        for index in range(STEPS):
            state = step(
                model=model, positive=positive, negative=negative, state=state, sigmas=sigmas, step=index, cfg=3.0,
                noise=noise, latent_image=blank, sampler=sampler,
            )  # fmt: skip
        return end(model=model, state=state, latent_image=blank)

    return sample


def test_the_names_are_those_of_the_tables():
    assert get_args(SamplerName) == tuple(SAMPLERS)
    assert get_args(SchedulerName) == tuple(SCHEDULES)


@pytest.mark.parametrize("name", NAMES)
def test_two_halves_are_the_whole(tmp_path: Path, name: SamplerName):
    used = engine(tmp_path)
    assert torch.equal(sampled(used, whole(name)), sampled(used, halves(name)))


# The others leave one level of the schedule out, which BasicScheduler does not know of.
@pytest.mark.parametrize("name", [name for name in NAMES if not SAMPLERS[name].drop_penultimate])
def test_step_by_step_is_the_whole_and_shares_its_steps(tmp_path: Path, name: SamplerName):
    used = engine(tmp_path)
    ran: list[str] = []
    expected = sampled(used, whole(name))

    def emit(event: Event) -> None:
        ran.extend([event.class_name] if isinstance(event, NodeFinished) else [])

    assert torch.equal(sampled(used, step_by_step(name), emit=emit), expected)
    assert sorted(ran) == ["BasicScheduler", "KSamplerSelect"]


@pytest.mark.parametrize("name", ["euler", "dpmpp_2m_sde", "ddim"])
def test_halves_and_single_steps_are_the_whole_under_a_soft_mask(tmp_path: Path, name: SamplerName):
    used = engine(tmp_path)
    expected = sampled(used, whole(name), masked=True)
    assert not torch.equal(expected, sampled(used, whole(name)))
    assert torch.equal(sampled(used, step_by_step(name), masked=True), expected)
    assert torch.equal(sampled(used, halves(name), masked=True), expected)


def test_a_longer_schedule_of_the_same_levels_reuses_its_beginning(tmp_path: Path):
    used = engine(tmp_path)
    ran: list[str] = []

    def first_steps(end_at: int) -> Sampling:
        return lambda model, positive, negative, blank: ksampler_advanced(
            model=model, noise_seed=5, steps=STEPS, cfg=3.0, sampler_name="euler", scheduler="normal",
            positive=positive, negative=negative, latent_image=blank, end_at_step=end_at,
            return_with_leftover_noise="enable",
        )  # fmt: skip

    sampled(used, first_steps(3))
    sampled(
        used,
        first_steps(5),
        emit=lambda event: ran.extend([event.class_name] if isinstance(event, NodeFinished) else []),
    )
    assert ran.count("SamplerStepBetween") == 2


def test_cfg_1_does_not_look_at_the_negative_prompt(tmp_path: Path):
    def at_one(text: str) -> Sampling:
        def sample(model: Model, positive: Conditioning, negative: Conditioning, blank: Latent) -> Latent:
            return ksampler(
                model=model, seed=5, steps=2, cfg=1.0, positive=positive, latent_image=blank,
                negative=negative if text else positive,
            )  # fmt: skip

        return sample

    used = engine(tmp_path)
    assert torch.equal(sampled(used, at_one("")), sampled(used, at_one("other")))


def test_denoise_0_leaves_the_latent_as_it_is(tmp_path: Path):
    def nothing(model: Model, positive: Conditioning, negative: Conditioning, blank: Latent) -> Latent:
        return ksampler(model=model, positive=positive, negative=negative, latent_image=blank, denoise=0.0)

    assert torch.equal(sampled(engine(tmp_path), nothing), torch.zeros(1, 4, 8, 8))
