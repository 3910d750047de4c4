"""The samplers by name, what their callers have to know about them, and how a step of one is taken."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from torch import Tensor

from nodes.maths.model_sampling import ModelSampling
from nodes.maths.samplers import cfg_pp
from nodes.maths.samplers.adams_bashforth import deis, ipndm, ipndm_v, lms
from nodes.maths.samplers.contract import Denoiser, Guided, NoiseKind, NoiseSource, Sampler, State, as_guided
from nodes.maths.samplers.dpm_plus_plus import dpmpp_2m, dpmpp_2m_sde, dpmpp_2s_ancestral, dpmpp_3m_sde, dpmpp_sde
from nodes.maths.samplers.dpm_solver import dpm_adaptive, dpm_fast
from nodes.maths.samplers.er_sde import er_sde
from nodes.maths.samplers.euler import ddpm, euler, euler_ancestral, gradient_estimation, lcm
from nodes.maths.samplers.exploding import advance_exploded, exploded
from nodes.maths.samplers.exponential import res_multistep, seeds_2, seeds_3
from nodes.maths.samplers.runge_kutta import dpm_2, dpm_2_ancestral, heun, heunpp2
from nodes.maths.samplers.sa_solver import sa_solver
from nodes.maths.samplers.uni_pc import LAST_SIGMA, uni_pc

ALMOST_NOTHING = 1e-4

Settings = Mapping[str, float]
Settle = Callable[[ModelSampling, Sequence[float]], Settings]  # (model, whole schedule) -> settings
OnFlow = Literal["alike", "told", "exploded"]
"""What a sampler does on a rectified flow: the same as ever; as it is told by `flow`; or a diffusion's step."""


@dataclass(frozen=True, slots=True)
class SamplerSpec:
    """A sampler and what its caller has to know about it."""

    step: Sampler
    order: int = 1  # of convergence to the exact distribution, away from both ends
    evaluations: int = 1  # of the network in a step, away from both ends; 0: as many as it takes
    noise: NoiseKind = "none"
    drop_penultimate: bool = False  # the last sigma but one is left out of the schedule
    mask_seed_offset: int = 0  # inpainting noises the kept area with seed + this
    lookahead: int = 0  # how many sigmas it must be told of after the next one, with its usual settings
    uncond: bool = False  # it needs the unconditional prediction, whatever the scale of guidance
    settle: Settle | None = None  # what it must be told beforehand
    on_flow: OnFlow = "alike"
    stops_at: float = 0.0  # the level that it comes down to, where a schedule ends at 0


def own_levels(sampling: ModelSampling, sigmas: Sequence[float]) -> Settings:
    """The ends of a schedule, the last above 0, and how many steps it has."""
    last = sigmas[-1] or sigmas[-2]
    return {"first": sigmas[0], "last": last, "evaluations": len(sigmas) - 1}


def end_level(sampling: ModelSampling, sigmas: Sequence[float]) -> Settings:
    return {"last": sigmas[-1] or sigmas[-2]}


def noisy_middle(sampling: ModelSampling, sigmas: Sequence[float]) -> Settings:
    """SA-Solver adds noise between a fifth and four fifths of the model's timesteps."""
    return band(sampling, 0.2, 0.8)


def band(sampling: ModelSampling, start: float, end: float) -> Settings:
    """The levels at which SA-Solver begins and ends to add noise, at these shares of the sampling."""
    high, low = sampling.percent_to_sigma(start), sampling.percent_to_sigma(end)
    if sampling.flow:
        high, low = (exploded(level) if level < 1.0 else math.inf for level in (high, low))
    return {"high": high, "low": low}


SAMPLERS: dict[str, SamplerSpec] = {
    "euler": SamplerSpec(euler),
    "euler_cfg_pp": SamplerSpec(cfg_pp.euler_cfg_pp, uncond=True, on_flow="told"),
    "euler_ancestral": SamplerSpec(euler_ancestral, noise="sequential", on_flow="told"),
    "euler_ancestral_cfg_pp": SamplerSpec(
        cfg_pp.euler_ancestral_cfg_pp, noise="sequential", uncond=True, on_flow="told"
    ),
    "heun": SamplerSpec(heun, order=2, evaluations=2),
    "heunpp2": SamplerSpec(heunpp2, evaluations=3, lookahead=2),
    "dpm_2": SamplerSpec(dpm_2, order=2, evaluations=2, drop_penultimate=True),
    "dpm_2_ancestral": SamplerSpec(
        dpm_2_ancestral, order=2, evaluations=2, noise="sequential", drop_penultimate=True, on_flow="told"
    ),
    "lms": SamplerSpec(lms, order=4),
    "dpm_fast": SamplerSpec(dpm_fast, order=3, evaluations=0, settle=own_levels),
    "dpm_adaptive": SamplerSpec(dpm_adaptive, order=3, evaluations=0, settle=end_level),
    "dpmpp_2s_ancestral": SamplerSpec(dpmpp_2s_ancestral, order=2, evaluations=2, noise="sequential", on_flow="told"),
    "dpmpp_2s_ancestral_cfg_pp": SamplerSpec(
        cfg_pp.dpmpp_2s_ancestral_cfg_pp, order=2, evaluations=2, noise="sequential", uncond=True
    ),
    "dpmpp_sde": SamplerSpec(dpmpp_sde, order=2, evaluations=2, noise="brownian", on_flow="exploded"),
    "dpmpp_sde_gpu": SamplerSpec(dpmpp_sde, order=2, evaluations=2, noise="brownian", on_flow="exploded"),
    "dpmpp_2m": SamplerSpec(dpmpp_2m, order=2),
    "dpmpp_2m_cfg_pp": SamplerSpec(cfg_pp.dpmpp_2m_cfg_pp, order=2, uncond=True),
    "dpmpp_2m_sde": SamplerSpec(dpmpp_2m_sde, order=2, noise="brownian", on_flow="exploded"),
    "dpmpp_2m_sde_gpu": SamplerSpec(dpmpp_2m_sde, order=2, noise="brownian", on_flow="exploded"),
    "dpmpp_2m_sde_heun": SamplerSpec(partial(dpmpp_2m_sde, heun=True), order=2, noise="brownian", on_flow="exploded"),
    "dpmpp_2m_sde_heun_gpu": SamplerSpec(
        partial(dpmpp_2m_sde, heun=True), order=2, noise="brownian", on_flow="exploded"
    ),
    "dpmpp_3m_sde": SamplerSpec(dpmpp_3m_sde, order=2, noise="brownian", on_flow="exploded"),
    "dpmpp_3m_sde_gpu": SamplerSpec(dpmpp_3m_sde, order=2, noise="brownian", on_flow="exploded"),
    "ddpm": SamplerSpec(ddpm, noise="sequential"),
    "lcm": SamplerSpec(lcm, noise="sequential", on_flow="told"),
    "ipndm": SamplerSpec(ipndm),
    "ipndm_v": SamplerSpec(ipndm_v, order=4),
    "deis": SamplerSpec(deis, order=3),
    "res_multistep": SamplerSpec(res_multistep, order=2),
    "res_multistep_cfg_pp": SamplerSpec(cfg_pp.res_multistep_cfg_pp, order=2, uncond=True),
    "res_multistep_ancestral": SamplerSpec(partial(res_multistep, eta=1.0), order=2, noise="sequential"),
    "res_multistep_ancestral_cfg_pp": SamplerSpec(
        partial(cfg_pp.res_multistep_cfg_pp, eta=1.0), order=2, noise="sequential", uncond=True
    ),
    "gradient_estimation": SamplerSpec(gradient_estimation),
    "gradient_estimation_cfg_pp": SamplerSpec(cfg_pp.gradient_estimation_cfg_pp, uncond=True),
    "er_sde": SamplerSpec(er_sde, order=2, noise="sequential", on_flow="exploded"),
    "seeds_2": SamplerSpec(seeds_2, order=2, evaluations=2, noise="sequential", on_flow="exploded"),
    "seeds_3": SamplerSpec(seeds_3, order=2, evaluations=3, noise="sequential", on_flow="exploded"),
    "sa_solver": SamplerSpec(
        sa_solver, order=2, noise="sequential", lookahead=3, settle=noisy_middle, on_flow="exploded"
    ),
    "sa_solver_pece": SamplerSpec(
        partial(sa_solver, pece=True),
        order=2,
        evaluations=2,
        noise="sequential",
        lookahead=3,
        settle=noisy_middle,
        on_flow="exploded",
    ),
    "ddim": SamplerSpec(euler, mask_seed_offset=1),
    "uni_pc": SamplerSpec(uni_pc, order=4, drop_penultimate=True, lookahead=2, stops_at=LAST_SIGMA),
    "uni_pc_bh2": SamplerSpec(
        partial(uni_pc, bh2=True), order=4, drop_penultimate=True, lookahead=2, stops_at=LAST_SIGMA
    ),
}
"""In the order of the reference's list. Noise is drawn on the processor for all of them, so `_gpu` changes nothing."""


def settings_for(
    sampler_name: str, sampling: ModelSampling, sigmas: Sequence[float], grows: bool = False
) -> tuple[tuple[str, float], ...]:
    """What a sampler must be told beforehand of the model and the whole schedule; nothing for most.

    Args:
        grows: whether the latent does, which goes by the number of steps.
    """
    spec, told = spec_of(sampler_name), dict[str, float]()
    if grows:
        told["steps"] = len(sigmas) - 1
    if spec.settle and len(sigmas) > 1:
        told |= spec.settle(sampling, sigmas)
    if sampling.flow and spec.on_flow != "alike":
        # Where there is nothing but noise, the signal-to-noise ratio has no logarithm: start a little later.
        told["flow"] = sampling.percent_to_sigma(ALMOST_NOTHING)
    return tuple(told.items())


def lookahead(sampler_name: str, settings: Settings) -> int:
    """How many sigmas a sampler must be told of after the next one: its order falls over so many steps at the end."""
    usual = spec_of(sampler_name).lookahead
    orders = settings.get("predictor_order", 0.0), settings.get("corrector_order", 0.0) - 1
    return max(usual, *map(int, orders)) if usual else 0


def spec_of(sampler_name: str) -> SamplerSpec:
    """Raises ValueError for an unknown sampler."""
    if sampler_name not in SAMPLERS:
        raise ValueError(f"unknown sampler {sampler_name!r}; expected one of {', '.join(SAMPLERS)}")
    return SAMPLERS[sampler_name]


def advance(
    sampler_name: str,
    state: State,
    denoise: Denoiser | Guided,
    sigma: float,
    sigma_next: float,
    noise_source: NoiseSource,
) -> State:
    """One step of the named sampler: a pure function of its arguments, so a frozen state continues bit for bit.

    Two equal sigmas, which a schedule of very many steps can hold, are no step. A plain denoiser counts as
    unconditional where that is asked for. Raises ValueError for an unknown sampler, for a sigma that is not positive,
    and for a rising step of a sampler that would have to remove noise.
    """
    spec = spec_of(sampler_name)
    if not sigma > 0 or not sigma_next >= 0:
        raise ValueError(
            f"a step from sigma {sigma} to {sigma_next}: expected a positive sigma and a next one of at least 0"
        )
    if sigma_next > sigma and spec.noise != "none":
        raise ValueError(f"{sampler_name} cannot step up from sigma {sigma} to {sigma_next}")
    if sigma_next == sigma:
        return replace(state, ahead=())

    drawn = 0

    def noise(sigma: float, sigma_next: float) -> Tensor:
        nonlocal drawn
        drawn += 1
        return noise_source(state.draws + drawn - 1, sigma, sigma_next).to(state.x)

    settings = dict(state.settings)
    before = replace(state, ahead=state.ahead[: lookahead(sampler_name, settings)])
    highest = settings.pop("flow", 0.0)
    if highest and spec.on_flow == "exploded":
        step = partial(spec.step, **settings)
        after = advance_exploded(step, before, as_guided(denoise), sigma, sigma_next, noise, highest)
    else:
        told = {"flow": True} if highest else {}
        after = spec.step(before, as_guided(denoise), sigma, sigma_next, noise, **settings, **told)
    return replace(after, draws=state.draws + drawn, ahead=())
