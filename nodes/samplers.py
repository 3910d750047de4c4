"""Samplers with settings of one's own, as nodes. Where nothing differs from the usual, KSampler's steps are shared."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from graph.literals import Widget
from graph.node import node
from nodes.sampling import SamplerName
from nodes.values import Model, SamplerChoice

Device = Annotated[
    Literal["gpu", "cpu"], Field(description="Noise is drawn on the processor in any case, so that pictures agree.")
]
Resize = Literal["bislerp", "nearest-exact", "bilinear", "area", "bicubic"]
Share = Annotated[float, Field(ge=0, le=1, description="A share of the model's timesteps."), Widget(step=0.001)]
Positive = Annotated[float, Field(ge=0, le=100), Widget(step=0.01, round=False)]
Eta = Annotated[
    float,
    Field(ge=0, le=100, description="How much fresh noise replaces the old; 0 adds none."),
    Widget(step=0.01, round=False),
]
NoiseScale = Annotated[
    float,
    Field(ge=0, le=100, description="How strong that noise is; 1 keeps the variance."),
    Widget(step=0.01, round=False),
]


@node("SamplerEulerAncestral", category="sampling/custom_sampling/samplers")
def euler_ancestral_sampler(eta: Eta = 1.0, s_noise: NoiseScale = 1.0) -> SamplerChoice:
    """Euler's method with fresh noise after every step."""
    return _choice("euler_ancestral", eta=(eta, 1.0), s_noise=(s_noise, 1.0))


@node("SamplerEulerAncestralCFGPP", category="sampling/custom_sampling/samplers")
def euler_ancestral_cfg_pp_sampler(
    eta: Annotated[
        float,
        Field(ge=0, le=1, description="How much fresh noise replaces the old; 0 adds none."),
        Widget(step=0.01, round=False),
    ] = 1.0,
    s_noise: Annotated[
        float,
        Field(ge=0, le=10, description="How strong that noise is; 1 keeps the variance."),
        Widget(step=0.01, round=False),
    ] = 1.0,
) -> SamplerChoice:
    """Euler's method with fresh noise, back to noise along the negative prompt (CFG++, Chung et al. 2024)."""
    return _choice("euler_ancestral_cfg_pp", eta=(eta, 1.0), s_noise=(s_noise, 1.0))


@node("SamplerEulerCFGpp", category="_for_testing", stage="experimental")
def euler_cfg_pp_sampler(
    version: Annotated[
        Literal["regular", "alternative"], Field(description="regular: as its authors have it, which is all there is.")
    ] = "regular",
) -> SamplerChoice:
    """Euler's method, back to noise along the negative prompt (CFG++, Chung et al. 2024)."""
    if version != "regular":
        raise ValueError("version alternative: no paper has its formula, so it is not here; expected regular")
    return _choice("euler_cfg_pp")


@node("SamplerLMS", category="sampling/custom_sampling/samplers")
def lms_sampler(
    order: Annotated[int, Field(ge=1, le=100, description="Through how many slopes it extrapolates.")] = 4,
) -> SamplerChoice:
    """The linear multistep method: a polynomial through the last slopes."""
    return _choice("lms", order=(order, 4))


@node("SamplerDPMPP_2S_Ancestral", category="sampling/custom_sampling/samplers")
def dpmpp_2s_ancestral_sampler(eta: Eta = 1.0, s_noise: NoiseScale = 1.0) -> SamplerChoice:
    """DPM-Solver++(2S) with fresh noise after every step (Lu et al. 2022)."""
    return _choice("dpmpp_2s_ancestral", eta=(eta, 1.0), s_noise=(s_noise, 1.0))


@node("SamplerDPMPP_SDE", category="sampling/custom_sampling/samplers")
def dpmpp_sde_sampler(
    eta: Eta = 1.0,
    s_noise: NoiseScale = 1.0,
    r: Annotated[
        float,
        Field(ge=0, le=100, description="Where in a step it looks a second time."),
        Widget(step=0.01, round=False),
    ] = 0.5,
    noise_device: Device = "gpu",
) -> SamplerChoice:
    """DPM-Solver++ under the noise of one Brownian path, with two looks a step."""
    return _choice("dpmpp_sde", eta=(eta, 1.0), s_noise=(s_noise, 1.0), r=(r, 0.5))


@node("SamplerDPMPP_2M_SDE", category="sampling/custom_sampling/samplers")
def dpmpp_2m_sde_sampler(
    solver_type: Annotated[
        Literal["midpoint", "heun"], Field(description="How the last prediction corrects this one.")
    ] = "midpoint",
    eta: Eta = 1.0,
    s_noise: NoiseScale = 1.0,
    noise_device: Device = "gpu",
) -> SamplerChoice:
    """DPM-Solver++(2M) under the noise of one Brownian path (Lu et al. 2022)."""
    name: SamplerName = "dpmpp_2m_sde_heun" if solver_type == "heun" else "dpmpp_2m_sde"
    return _choice(name, eta=(eta, 1.0), s_noise=(s_noise, 1.0))


@node("SamplerDPMPP_3M_SDE", category="sampling/custom_sampling/samplers")
def dpmpp_3m_sde_sampler(eta: Eta = 1.0, s_noise: NoiseScale = 1.0, noise_device: Device = "gpu") -> SamplerChoice:
    """DPM-Solver++ through the last three predictions, under the noise of one Brownian path."""
    return _choice("dpmpp_3m_sde", eta=(eta, 1.0), s_noise=(s_noise, 1.0))


@node("SamplerDPMAdaptative", category="sampling/custom_sampling/samplers")
def dpm_adaptive_sampler(
    order: Annotated[int, Field(ge=2, le=3, description="Of the better of its two solutions.")] = 3,
    rtol: Annotated[
        float, Field(ge=0, le=100, description="The error it allows, by size."), Widget(step=0.01, round=False)
    ] = 0.05,
    atol: Annotated[
        float, Field(ge=0, le=100, description="The error it always allows."), Widget(step=0.01, round=False)
    ] = 0.0078,
    h_init: Annotated[
        float,
        Field(ge=0, le=100, description="The first step, in the logarithm of the noise level."),
        Widget(step=0.01, round=False),
    ] = 0.05,
    pcoeff: Positive = 0.0,
    icoeff: Positive = 1.0,
    dcoeff: Positive = 0.0,
    accept_safety: Annotated[
        float,
        Field(ge=0, le=100, description="A step is repeated that should have been shorter than this share."),
        Widget(step=0.01, round=False),
    ] = 0.81,
    eta: Eta = 0.0,
    s_noise: NoiseScale = 1.0,
) -> SamplerChoice:
    """DPM-Solver that chooses its own steps by the error it estimates (Lu et al. 2022)."""
    return _choice(
        "dpm_adaptive", order=(order, 3), rtol=(rtol, 0.05), atol=(atol, 0.0078), h_init=(h_init, 0.05),
        pcoeff=(pcoeff, 0.0), icoeff=(icoeff, 1.0), dcoeff=(dcoeff, 0.0), accept_safety=(accept_safety, 0.81),
        eta=(eta, 0.0), s_noise=(s_noise, 1.0),
    )  # fmt: skip


@node("SamplerLCMUpscale", category="sampling/custom_sampling/samplers")
def lcm_upscale_sampler(
    scale_ratio: Annotated[
        float,
        Field(ge=0.1, le=20, description="How many times as wide and high the latent becomes."),
        Widget(step=0.01),
    ] = 1.0,
    scale_steps: Annotated[
        int,
        Field(ge=-1, le=1000, description="In how many steps, from the first on; -1: in half of them."),
        Widget(step=1),
    ] = -1,
    upscale_method: Resize = "bislerp",
) -> SamplerChoice:
    """Consistency sampling of a latent that grows from step to step; noise masks cannot follow it."""
    if scale_ratio == 1.0:
        return _choice("lcm")
    # Settings are numbers: the place among the methods.
    method = get_args(Resize).index(upscale_method)
    return _choice("lcm", scale_ratio=(scale_ratio, None), scale_steps=(scale_steps, -1), upscale_method=(method, 0))


@node("SamplerER_SDE", category="sampling/custom_sampling/samplers")
def er_sde_sampler(
    solver_type: Annotated[
        Literal["ER-SDE", "Reverse-time SDE", "ODE"],
        Field(description="The noise scale its authors recommend, one by eta, or no noise."),
    ] = "ER-SDE",
    max_stage: Annotated[int, Field(ge=1, le=3, description="How many predictions it goes by.")] = 3,
    eta: Annotated[
        float,
        Field(ge=0, le=100, description="How much noise the reverse-time SDE renews."),
        Widget(step=0.01, round=False),
    ] = 1.0,
    s_noise: NoiseScale = 1.0,
) -> SamplerChoice:
    """Extended reverse-time SDE solvers (Cui et al. 2023)."""
    stages = {"max_stage": (max_stage, 3)}
    match solver_type:
        case "ER-SDE":
            return _choice("er_sde", **stages, s_noise=(s_noise, 1.0))
        case "Reverse-time SDE":
            return _choice("er_sde", **stages, eta=(eta, None), s_noise=(s_noise, 1.0))
        case "ODE":
            return _choice("er_sde", **stages, eta=(0.0, None))


@node("SamplerSASolver", category="sampling/custom_sampling/samplers")
def sa_solver_sampler(
    model: Model,
    eta: Annotated[
        float, Field(ge=0, le=10, description="How much noise it adds."), Widget(step=0.01, round=False)
    ] = 1.0,
    sde_start_percent: Share = 0.2,
    sde_end_percent: Share = 0.8,
    s_noise: NoiseScale = 1.0,
    predictor_order: Annotated[int, Field(ge=1, le=6, description="How many predictions a step goes by.")] = 3,
    corrector_order: Annotated[int, Field(ge=0, le=6, description="And its correction; 0 for none.")] = 4,
    use_pece: Annotated[bool, Field(description="Ask the network again after the correction.")] = False,
    simple_order_2: Annotated[bool, Field(description="A simpler second order, for few steps.")] = False,
) -> SamplerChoice:
    """A stochastic Adams method: noise is added between two shares of the model's timesteps (Xue et al. 2023)."""
    from nodes.denoiser import sampling_of
    from nodes.maths.samplers.table import band

    usual = (sde_start_percent, sde_end_percent) == (0.2, 0.8)
    noisy = band(sampling_of(model), sde_start_percent, sde_end_percent)
    return _choice(
        "sa_solver_pece" if use_pece else "sa_solver",
        **({} if usual else {name: (level, None) for name, level in noisy.items()}),
        eta=(eta, 1.0),
        s_noise=(s_noise, 1.0),
        predictor_order=(predictor_order, 3),
        corrector_order=(corrector_order, 4),
        simple_order_2=(simple_order_2, False),
    )


def _choice(name: SamplerName, **settings: tuple[float, float | None]) -> SamplerChoice:
    """A sampler with those of its settings that are not what they usually are."""
    return SamplerChoice(name, tuple((key, float(value)) for key, (value, usual) in settings.items() if value != usual))
