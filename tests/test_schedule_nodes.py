"""The nodes of custom sampling are declared as workflows know them, and give the noise levels of their formulas."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch

from graph.describe import node_info
from graph.folders import Folders
from nodes.engine import built_in
from nodes.maths import schedules, spacings
from nodes.maths.model_sampling import DiscreteSampling
from nodes.schedules import (
    aligned_scheduler,
    beta_scheduler,
    exponential_scheduler,
    extend_sigmas,
    flip_sigmas,
    karras_scheduler,
    laplace_scheduler,
    lowest_level,
    percent_to_sigma,
    polyexponential_scheduler,
    set_first_sigma,
    shifted_scheduler,
    split_sigmas,
    split_sigmas_denoise,
    turbo_scheduler,
    vp_scheduler,
)
from nodes.values import Latent, Model, Sigmas, Weights

MODEL = Model(Weights(Path("none"), "toy", "toy"))
SD1 = DiscreteSampling()
SIGMAS = Sigmas((4.0, 3.0, 2.0, 1.0, 0.0))

# As the reference lists them: name, type, default, range, step of the widget; then the outputs.
DECLARED = """
KarrasScheduler | steps INT=20 1..10000; sigma_max FLOAT=14.614642 0..5000 /0.01; sigma_min FLOAT=0.0291675 0..5000 /0.01; rho FLOAT=7 0..100 /0.01 | SIGMAS
ExponentialScheduler | steps INT=20 1..10000; sigma_max FLOAT=14.614642 0..5000 /0.01; sigma_min FLOAT=0.0291675 0..5000 /0.01 | SIGMAS
PolyexponentialScheduler | steps INT=20 1..10000; sigma_max FLOAT=14.614642 0..5000 /0.01; sigma_min FLOAT=0.0291675 0..5000 /0.01; rho FLOAT=1 0..100 /0.01 | SIGMAS
LaplaceScheduler | steps INT=20 1..10000; sigma_max FLOAT=14.614642 0..5000 /0.01; sigma_min FLOAT=0.0291675 0..5000 /0.01; mu FLOAT=0 -10..10 /0.1; beta FLOAT=0.5 0..10 /0.1 | SIGMAS
VPScheduler | steps INT=20 1..10000; beta_d FLOAT=19.9 0..5000 /0.01; beta_min FLOAT=0.1 0..5000 /0.01; eps_s FLOAT=0.001 0..1 /0.0001 | SIGMAS
BetaSamplingScheduler | model MODEL; steps INT=20 1..10000; alpha FLOAT=0.6 0..50 /0.01; beta FLOAT=0.6 0..50 /0.01 | SIGMAS
SDTurboScheduler | model MODEL; steps INT=1 1..10; denoise FLOAT=1 0..1 /0.01 | SIGMAS
AlignYourStepsScheduler | model_type SD1,SDXL,SVD; steps INT=10 1..10000; denoise FLOAT=1 0..1 /0.01 | SIGMAS
SplitSigmas | sigmas SIGMAS; step INT=0 0..10000 | SIGMAS high_sigmas, SIGMAS low_sigmas
SplitSigmasDenoise | sigmas SIGMAS; denoise FLOAT=1 0..1 /0.01 | SIGMAS high_sigmas, SIGMAS low_sigmas
FlipSigmas | sigmas SIGMAS | SIGMAS
SetFirstSigma | sigmas SIGMAS; sigma FLOAT=136 0..20000 /0.001 | SIGMAS
ExtendIntermediateSigmas | sigmas SIGMAS; steps INT=2 1..100; start_at_sigma FLOAT=-1 -1..20000 /0.01; end_at_sigma FLOAT=12 0..20000 /0.01; spacing linear,cosine,sine | SIGMAS
SamplingPercentToSigma | model MODEL; sampling_percent FLOAT=0 0..1 /0.0001; return_actual_sigma BOOLEAN=False | FLOAT sigma_value
BasicGuider | model MODEL; conditioning CONDITIONING | GUIDER
CFGGuider | model MODEL; positive CONDITIONING; negative CONDITIONING; cfg FLOAT=8 0..100 /0.1 | GUIDER
SamplerCustom | model MODEL; add_noise BOOLEAN=True; noise_seed INT=0 0..18446744073709551615; cfg FLOAT=8 0..100 /0.1; positive CONDITIONING; negative CONDITIONING; sampler SAMPLER; sigmas SIGMAS; latent_image LATENT | LATENT output, LATENT denoised_output
SamplerCustomAdvanced | noise NOISE; guider GUIDER; sampler SAMPLER; sigmas SIGMAS; latent_image LATENT | LATENT output, LATENT denoised_output
SamplerEulerAncestral | eta FLOAT=1 0..100 /0.01; s_noise FLOAT=1 0..100 /0.01 | SAMPLER
SamplerEulerAncestralCFGPP | eta FLOAT=1 0..1 /0.01; s_noise FLOAT=1 0..10 /0.01 | SAMPLER
SamplerEulerCFGpp | version regular,alternative | SAMPLER
SamplerLCMUpscale | scale_ratio FLOAT=1 0.1..20 /0.01; scale_steps INT=-1 -1..1000 /1; upscale_method bislerp,nearest-exact,bilinear,area,bicubic | SAMPLER
SamplerLMS | order INT=4 1..100 | SAMPLER
SamplerDPMPP_SDE | eta FLOAT=1 0..100 /0.01; s_noise FLOAT=1 0..100 /0.01; r FLOAT=0.5 0..100 /0.01; noise_device gpu,cpu | SAMPLER
SamplerDPMPP_2M_SDE | solver_type midpoint,heun; eta FLOAT=1 0..100 /0.01; s_noise FLOAT=1 0..100 /0.01; noise_device gpu,cpu | SAMPLER
SamplerDPMPP_3M_SDE | eta FLOAT=1 0..100 /0.01; s_noise FLOAT=1 0..100 /0.01; noise_device gpu,cpu | SAMPLER
SamplerDPMPP_2S_Ancestral | eta FLOAT=1 0..100 /0.01; s_noise FLOAT=1 0..100 /0.01 | SAMPLER
SamplerDPMAdaptative | order INT=3 2..3; rtol FLOAT=0.05 0..100 /0.01; atol FLOAT=0.0078 0..100 /0.01; h_init FLOAT=0.05 0..100 /0.01; pcoeff FLOAT=0 0..100 /0.01; icoeff FLOAT=1 0..100 /0.01; dcoeff FLOAT=0 0..100 /0.01; accept_safety FLOAT=0.81 0..100 /0.01; eta FLOAT=0 0..100 /0.01; s_noise FLOAT=1 0..100 /0.01 | SAMPLER
SamplerER_SDE | solver_type ER-SDE,Reverse-time SDE,ODE; max_stage INT=3 1..3; eta FLOAT=1 0..100 /0.01; s_noise FLOAT=1 0..100 /0.01 | SAMPLER
SamplerSASolver | model MODEL; eta FLOAT=1 0..10 /0.01; sde_start_percent FLOAT=0.2 0..1 /0.001; sde_end_percent FLOAT=0.8 0..1 /0.001; s_noise FLOAT=1 0..100 /0.01; predictor_order INT=3 1..6; corrector_order INT=4 0..6; use_pece BOOLEAN=False; simple_order_2 BOOLEAN=False | SAMPLER
""".strip().splitlines()  # noqa: E501  # one node a line, as in the reference


def declared_input(name: str, kind: Any, options: dict[str, Any]) -> str:
    """One input in the notation above."""
    if isinstance(kind, list):
        return f"{name} {','.join(cast('list[str]', kind))}"
    default = f"={number(options['default'])}" if "default" in options else ""
    limits = f" {number(options['min'])}..{number(options['max'])}" if "min" in options else ""
    step = f" /{number(options['step'])}" if "step" in options else ""
    return f"{name} {kind}{default}{limits}{step}"


def number(value: Any) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)


@pytest.mark.parametrize("line", DECLARED, ids=lambda line: line.split()[0])
def test_nodes_are_declared_as_workflows_know_them(line: str, tmp_path: Path) -> None:
    name, inputs, outputs = line.split(" | ")
    info = node_info(built_in()[name], Folders.below(tmp_path))
    required = info["input"]["required"].items()
    assert "; ".join(declared_input(key, kind, *(rest or [{}])) for key, (kind, *rest) in required) == inputs
    pairs = zip(info["output"], info["output_name"], strict=True)
    kinds = [kind if kind == shown else f"{kind} {shown}" for kind, shown in pairs]
    assert ", ".join(kinds) == outputs
    assert "optional" not in info["input"]


def floats(tensor: Any) -> tuple[float, ...]:
    return tuple(value.item() for value in tensor)


def test_schedule_nodes_hand_their_inputs_to_their_formulas() -> None:
    assert karras_scheduler(5, 9.0, 0.5, 3.0).values == floats(spacings.karras(5, 0.5, 9.0, 3.0))
    assert exponential_scheduler(5, 9.0, 0.5).values == floats(spacings.exponential(5, 0.5, 9.0))
    assert polyexponential_scheduler(5, 9.0, 0.5, 2.0).values == floats(spacings.polyexponential(5, 0.5, 9.0, 2.0))
    assert laplace_scheduler(5, 9.0, 0.5, 0.2, 0.7).values == floats(spacings.laplace(5, 0.5, 9.0, 0.2, 0.7))
    assert vp_scheduler(5, 9.0, 0.2, 0.1).values == floats(spacings.variance_preserving(5, 9.0, 0.2, 0.1))
    assert beta_scheduler(MODEL, 5, 0.3, 0.9).values == floats(schedules.beta(SD1, 5, 0.3, 0.9))
    assert turbo_scheduler(MODEL, 3, 0.5).values == floats(spacings.turbo(SD1, 3, 0.5))
    assert aligned_scheduler("SDXL", 8, 0.5).values == floats(spacings.aligned("SDXL", 8, 0.5))
    latent = Latent(torch.zeros(1, 4, 32, 48))
    assert shifted_scheduler(8, latent=latent).values == floats(spacings.shifted_by_size(8, 1536, 2.05, 0.95, 0.1))
    assert shifted_scheduler(8, stretch=False).values == floats(spacings.shifted_by_size(8, 4096, 2.05, 0.95, None))


def test_beta_scheduler_with_the_usual_parameters_is_the_schedule_of_that_name() -> None:
    assert beta_scheduler(MODEL, 20, 0.6, 0.6).values == floats(schedules.scheduled_sigmas(SD1, "beta", 20))
    with pytest.raises(ValueError, match="alpha 0 and beta 0.6: expected both above 0"):
        beta_scheduler(MODEL, 20, 0.0, 0.6)


def test_edits_of_levels() -> None:
    assert flip_sigmas(Sigmas((3.0, 1.0))).values == (1.0, 3.0)
    assert set_first_sigma(SIGMAS, 8.0).values == (8.0, 3.0, 2.0, 1.0, 0.0)
    assert extend_sigmas(SIGMAS, 2, -1.0, 2.5, "linear").values == (4.0, 3.5, 3.0, 2.5, 2.0, 1.0, 0.0)
    assert extend_sigmas(SIGMAS, 2, 3.0, 3.0, "linear").values == (4.0, 3.0, 2.5, 2.0, 1.0, 0.0)


def test_the_low_part_of_a_split_is_the_wanted_share() -> None:
    high, low = split_sigmas_denoise(SIGMAS, 0.25)
    assert (high.values, low.values) == ((4.0, 3.0, 2.0, 1.0), (1.0, 0.0))


def test_every_part_of_a_schedule_knows_what_follows_it() -> None:
    high, low = split_sigmas(SIGMAS, 3)
    first, middle = split_sigmas(high, 1)
    assert [part.ahead for part in (high, low, first, middle)] == [(0.0,), (), (2.0, 1.0, 0.0), (0.0,)]
    assert [lowest_level(part) for part in (SIGMAS, high, first, Sigmas((0.0,)))] == [1.0, 1.0, 1.0, 0.0]


def test_percents_become_levels_and_the_ends_are_the_models_own_if_wanted() -> None:
    assert percent_to_sigma(MODEL, 0.25).sigma_value == SD1.sigma(999 * 0.75)
    assert [percent_to_sigma(MODEL, end).sigma_value for end in (0.0, 1.0)] == [999999999.9, 0.0]
    actual = [percent_to_sigma(MODEL, end, True).sigma_value for end in (0.0, 1.0)]
    assert actual == [SD1.sigma_max, SD1.sigma_min]
