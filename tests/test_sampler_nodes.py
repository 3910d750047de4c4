"""Samplers with settings of one's own: what they choose, and that it reaches the step."""

import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from graph.builder import WorkflowBuilder
from graph.events import Event, NodeFinished
from graph.folders import Folders
from nodes.checkpoints import load_checkpoint
from nodes.custom_sampling import basic_guider, sampler_custom_advanced
from nodes.engine import Engine
from nodes.latents import empty_latent, set_noise_mask
from nodes.maths.samplers import State, advance
from nodes.maths.samplers.growing import METHODS, Growth
from nodes.samplers import (
    dpm_adaptive_sampler,
    dpmpp_2m_sde_sampler,
    dpmpp_2s_ancestral_sampler,
    dpmpp_3m_sde_sampler,
    dpmpp_sde_sampler,
    er_sde_sampler,
    euler_ancestral_cfg_pp_sampler,
    euler_ancestral_sampler,
    euler_cfg_pp_sampler,
    lcm_upscale_sampler,
    lms_sampler,
    sa_solver_sampler,
)
from nodes.sampling import disable_noise, random_noise, select_sampler
from nodes.schedules import basic_scheduler, split_sigmas
from nodes.text import encode_text
from nodes.values import Latent, Model, SamplerChoice, Weights
from tests import tiny_models
from tests.running import SOURCES, any_mask
from tests.steps import denoise, draws, start, states

MODEL = Model(Weights(Path("none"), "toy", "toy"))
LEVELS = [8.0, 5.0, 3.0, 2.0, 1.2, 0.7, 0.3, 0.0]


def sampled(choice: SamplerChoice) -> Tensor:
    return states(choice.name, start(LEVELS[0]), LEVELS, draws(), denoise, dict(choice.settings))[-1].x


def test_usual_settings_are_those_of_the_samplers_of_that_name() -> None:
    chosen = [
        euler_ancestral_sampler(), euler_ancestral_cfg_pp_sampler(), lms_sampler(), dpmpp_2s_ancestral_sampler(),
        dpmpp_sde_sampler(), dpmpp_2m_sde_sampler(), dpmpp_2m_sde_sampler("heun"), dpmpp_3m_sde_sampler(),
        dpm_adaptive_sampler(), er_sde_sampler(), sa_solver_sampler(MODEL), sa_solver_sampler(MODEL, use_pece=True),
    ]  # fmt: skip
    names = (
        "euler_ancestral euler_ancestral_cfg_pp lms dpmpp_2s_ancestral dpmpp_sde dpmpp_2m_sde dpmpp_2m_sde_heun "
        "dpmpp_3m_sde dpm_adaptive er_sde sa_solver sa_solver_pece"
    )
    assert chosen == [SamplerChoice(name) for name in names.split()]


@pytest.mark.parametrize(
    ("choice", "same"),
    [
        (euler_ancestral_sampler(eta=0.0), "euler"),
        (euler_ancestral_cfg_pp_sampler(eta=0.0), "euler"),
        (lms_sampler(1), "euler"),
        (dpmpp_2m_sde_sampler(eta=0.0), "dpmpp_2m"),
        (dpmpp_2m_sde_sampler("heun", eta=0.0), "res_multistep"),
        (er_sde_sampler("ODE", max_stage=1), "euler"),
        (er_sde_sampler("Reverse-time SDE", max_stage=1), "euler_ancestral"),
        (er_sde_sampler("Reverse-time SDE", max_stage=1, eta=0.0), "euler"),
        (sa_solver_sampler(MODEL, eta=0.0, predictor_order=1, corrector_order=0), "euler"),
    ],
    ids=lambda given: given if isinstance(given, str) else given.name,
)
def test_settings_can_make_one_sampler_another(choice: SamplerChoice, same: str) -> None:
    torch.testing.assert_close(sampled(choice), sampled(SamplerChoice(same)), rtol=1e-4, atol=1e-4)


def test_two_looks_without_noise_are_those_of_2s() -> None:
    ours, theirs = sampled(dpmpp_sde_sampler(eta=0.0)), sampled(dpmpp_2s_ancestral_sampler(eta=0.0))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(ours, sampled(dpmpp_sde_sampler(eta=0.0, r=0.3)), atol=1e-3)


@pytest.mark.parametrize(
    ("choice", "other"),
    [
        (euler_ancestral_sampler(), euler_ancestral_sampler(s_noise=1.1)),
        (dpmpp_3m_sde_sampler(), dpmpp_3m_sde_sampler(eta=0.5)),
        (er_sde_sampler(), er_sde_sampler(max_stage=2)),
        (sa_solver_sampler(MODEL), sa_solver_sampler(MODEL, sde_end_percent=0.5)),
        (sa_solver_sampler(MODEL), sa_solver_sampler(MODEL, simple_order_2=True)),
        (sa_solver_sampler(MODEL), sa_solver_sampler(MODEL, predictor_order=2)),
        (sa_solver_sampler(MODEL), sa_solver_sampler(MODEL, corrector_order=1)),
        (dpm_adaptive_sampler(), dpm_adaptive_sampler(rtol=0.5)),
        (dpm_adaptive_sampler(), dpm_adaptive_sampler(order=2)),
        (dpm_adaptive_sampler(), dpm_adaptive_sampler(eta=1.0)),
        (dpm_adaptive_sampler(), dpm_adaptive_sampler(pcoeff=0.3, dcoeff=0.1)),
    ],
    ids=lambda given: f"{given.name}{dict(given.settings)}",
)
def test_every_setting_makes_a_difference(choice: SamplerChoice, other: SamplerChoice) -> None:
    ours, theirs = sampled(choice), sampled(other)
    assert ours.isfinite().all() and theirs.isfinite().all()
    assert not torch.allclose(ours, theirs, atol=1e-5)


def test_noise_is_the_same_wherever_it_is_said_to_be_drawn() -> None:
    assert dpmpp_sde_sampler(noise_device="cpu") == dpmpp_sde_sampler(noise_device="gpu")


def test_an_inner_point_at_the_start_of_a_step_is_refused() -> None:
    with pytest.raises(ValueError, match="r 0: the inner point of a step has to lie within it"):
        sampled(dpmpp_sde_sampler(r=0.0))


def test_choosing_a_sampler_loads_no_heavy_library() -> None:
    heavy = "{'torch', 'numpy', 'scipy', 'PIL', 'diffusers'}"
    code = (
        f"from nodes import samplers; samplers.dpmpp_sde_sampler(); import sys; assert not {heavy} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def always(noise: Tensor) -> Callable[[int, float, float], Tensor]:
    return lambda draw, sigma, sigma_next: noise


def grown(choice: SamplerChoice, steps: int = 4) -> list[tuple[int, ...]]:
    """The sizes of a latent of 8 x 12 after every step."""
    levels = [*(10.0 / 2**step for step in range(steps)), 0.0]
    settings = dict(choice.settings) | {"steps": steps, "height": 8, "width": 12}
    growth = Growth(**settings)
    state, sizes = State(torch.zeros(1, 1, 8, 12), settings=tuple(settings.items())), list[tuple[int, ...]]()
    for sigma, sigma_next in itertools.pairwise(levels):
        size = growth.size(state.draws + 1)
        state = advance("lcm", state, lambda x, sigma: x + 1, sigma, sigma_next, always(torch.ones(1, 1, *size)))
        sizes.append(tuple(state.x.shape[-2:]))
    return sizes


@pytest.mark.parametrize("method", METHODS)
def test_a_growing_latent_grows_by_as_much_after_every_step_until_it_is_as_large_as_asked(method: Any) -> None:
    assert grown(lcm_upscale_sampler(2.0, 4, method)) == [(10, 15), (12, 18), (14, 21), (16, 24)]
    assert grown(lcm_upscale_sampler(2.0, 2, method)) == [(12, 18), (16, 24), (16, 24), (16, 24)]
    assert grown(lcm_upscale_sampler(2.0, -1, method), 3) == [(12, 18), (16, 24), (16, 24)]
    assert grown(lcm_upscale_sampler(0.5, 1, method)) == [(4, 6)] * 4
    assert grown(lcm_upscale_sampler(2.0, 0, method)) == [(8, 12)] * 4
    assert lcm_upscale_sampler(1.0, 3, method) == SamplerChoice("lcm")


def test_a_latent_that_grows_is_what_it_is_with_its_noise_as_large() -> None:
    """One step by hand: all the way, larger, and noise."""
    settings = dict(lcm_upscale_sampler(2.0, 1, "nearest-exact").settings) | {"steps": 2, "height": 2, "width": 2}
    x, noise = (
        torch.arange(4.0).reshape(1, 1, 2, 2),
        torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(1)),
    )
    state = State(x, settings=tuple(settings.items()))
    after = advance("lcm", state, lambda x, sigma: x * 0.5, 8.0, 3.0, always(noise))
    expected = (x * 0.5).repeat_interleave(2, 2).repeat_interleave(2, 3) + 3.0 * noise
    torch.testing.assert_close(after.x, expected)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    tiny_models.write_checkpoint(tmp_path / "models" / "checkpoints" / "tiny")
    return Engine(Folders.below(tmp_path), precision="fp32")


def run(engine: Engine, choice: Callable[[], SamplerChoice], ran: list[str], cut: int | None = None) -> Tensor:
    """The latent after four steps, in one go or cut in two; `ran` is told what it took."""
    with WorkflowBuilder() as workflow:
        model, clip, _ = load_checkpoint(ckpt_name="tiny")
        guider = basic_guider(model=model, conditioning=encode_text(text="dog", clip=clip))
        sigmas = basic_scheduler(model=model, scheduler="normal", steps=4)
        high, low = split_sigmas(sigmas=sigmas, step=cut or 0)
        latent: Any = empty_latent(width=64, height=64)
        for noise, levels in ((random_noise(noise_seed=3), high if cut else sigmas), (disable_noise(), low)):
            if levels is not low or cut:
                latent = sampler_custom_advanced(
                    noise=noise, guider=guider, sampler=choice(), sigmas=levels, latent_image=latent
                ).output

    def emit(event: Event) -> None:
        ran.extend([event.class_name] if isinstance(event, NodeFinished) else [])

    value = engine.run(workflow, targets=[latent.step], emit=emit).checked().outputs[latent.step][0]
    assert isinstance(value, Latent)
    return value.samples


def test_usual_settings_share_the_steps_of_the_sampler_of_that_name(engine: Engine) -> None:
    ran: list[str] = []
    expected = run(engine, lambda: select_sampler(sampler_name="dpmpp_2m_sde"), [])
    assert torch.equal(run(engine, lambda: dpmpp_2m_sde_sampler(), ran), expected)
    assert "SamplerStepBetween" not in ran
    assert not torch.equal(run(engine, lambda: dpmpp_2m_sde_sampler(eta=0.5), ran), expected)
    assert ran.count("SamplerStepBetween") == 4


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_settings_last_over_a_cut(engine: Engine, eta: float) -> None:
    whole = run(engine, lambda: dpmpp_2m_sde_sampler(eta=eta), [])
    assert torch.equal(run(engine, lambda: dpmpp_2m_sde_sampler(eta=eta), [], cut=2), whole)


def test_a_growing_latent_goes_on_growing_over_a_cut(engine: Engine) -> None:
    whole = run(engine, lambda: lcm_upscale_sampler(1.5, 3), [])
    assert whole.shape[-2:] == (12, 12) and whole.isfinite().all()
    assert torch.equal(run(engine, lambda: lcm_upscale_sampler(1.5, 3), [], cut=2), whole)


def test_a_noise_mask_on_a_latent_that_grows_is_refused(engine: Engine) -> None:
    with WorkflowBuilder() as workflow:
        model, clip, _ = load_checkpoint("tiny")
        guider = basic_guider(model=model, conditioning=encode_text(text="a cat", clip=clip))
        masked = set_noise_mask(empty_latent(width=64, height=64), any_mask())
        sigmas = basic_scheduler(model=model, scheduler="normal", steps=4)
        sampler = lcm_upscale_sampler(2.0)
        latent: Any = sampler_custom_advanced(
            noise=random_noise(), guider=guider, sampler=sampler, sigmas=sigmas, latent_image=masked
        ).output
    engine.catalogue = engine.catalogue | SOURCES
    (failure,) = engine.run(workflow, targets=[latent.step]).failures
    assert "a noise mask cannot follow a latent that grows" in str(failure)


def test_the_other_version_of_cfg_pp_is_refused_with_why() -> None:
    assert euler_cfg_pp_sampler() == SamplerChoice("euler_cfg_pp")
    with pytest.raises(ValueError, match="no paper has its formula.*expected regular"):
        euler_cfg_pp_sampler("alternative")
