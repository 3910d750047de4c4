"""Say how a network was trained to predict, where its file does not, or says something else."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from graph.literals import Widget
from graph.node import node
from nodes.latent_scale import EDM_SIGMA_DATA, PLAYGROUND_SCALE, PLAYGROUND_SHIFT
from nodes.lengths import LONGEST
from nodes.values import Architecture, ContinuousLevels, FlowLevels, Model, Prediction

Shift = Annotated[
    float, Field(ge=0, le=100, description="Above 1: more of the steps at high noise levels."), Widget(step=0.01)
]
Level = Annotated[float, Field(ge=0, le=1000, description="A noise level."), Widget(step=0.001, round=False)]
Side = Annotated[int, Field(ge=16, le=LONGEST, description="In pixels of the picture."), Widget(step=8)]

DISTILLED = 50
"""Timesteps that latent consistency models were distilled on."""
MULTIPLIERS: Mapping[Architecture, float] = {"SD 3": 1000.0, "Flux": 1.0}
"""How transformers are told of noise levels, whichever node shifts these."""
FLUX_TOKENS = 256, 4096
"""Numbers of tokens, of 16 × 16 pixels each, between which Flux's shift grows."""


@node("ModelSamplingDiscrete", category="advanced/model")
def discrete(
    model: Model,
    sampling: Annotated[
        Literal["eps", "v_prediction", "lcm", "x0", "img_to_img"],
        Field(
            description="What the network predicts: the noise, the velocity, the latent; lcm: distilled to few steps."
        ),
    ] = "eps",
    zsnr: Annotated[bool, Field(description="The last timestep was trained on pure noise.")] = False,
) -> Model:
    """Have a network's timesteps be the usual thousand."""
    predictions: dict[str, Prediction] = {"eps": "epsilon", "x0": "sample"}
    return replace(
        model,
        prediction=predictions.get(sampling, sampling),
        levels=None,
        zero_terminal_snr=zsnr,
        distilled=DISTILLED if sampling == "lcm" else 0,
    )


@node("ModelSamplingContinuousEDM", category="advanced/model")
def continuous_edm(
    model: Model,
    sampling: Annotated[
        Literal["v_prediction", "edm", "edm_playground_v2.5", "eps", "cosmos_rflow"],
        Field(description="What the network predicts."),
    ] = "v_prediction",
    sigma_max: Level = 120.0,
    sigma_min: Level = 0.002,
) -> Model:
    """Have a network know every noise level between two, told of it by its logarithm (Karras et al. 2022)."""
    match sampling:
        case "cosmos_rflow":
            return _continuous(model, sampling, ContinuousLevels(sigma_min, sigma_max, time="share"))
        case "edm":
            return _continuous(model, "edm", ContinuousLevels(sigma_min, sigma_max, EDM_SIGMA_DATA))
        case "edm_playground_v2.5":
            trained = _continuous(model, "edm", ContinuousLevels(sigma_min, sigma_max, EDM_SIGMA_DATA))
            return replace(trained, latent_scale=PLAYGROUND_SCALE, latent_shift=PLAYGROUND_SHIFT)
        case _:
            prediction: Prediction = "epsilon" if sampling == "eps" else sampling
            return _continuous(model, prediction, ContinuousLevels(sigma_min, sigma_max))


@node("ModelSamplingContinuousV", category="advanced/model")
def continuous_v(
    model: Model,
    sampling: Annotated[Literal["v_prediction"], Field(description="What the network predicts.")] = "v_prediction",
    sigma_max: Level = 500.0,
    sigma_min: Level = 0.03,
) -> Model:
    """Have a network know every noise level between two, told of it by its angle."""
    return _continuous(model, sampling, ContinuousLevels(sigma_min, sigma_max, time="arctan"))


@node("ModelSamplingSD3", category="advanced/model")
def flow_sd3(model: Model, shift: Shift = 3.0) -> Model:
    """Have a network be a rectified flow (Esser et al. 2024), told of the noise level in thousandths."""
    return _flow(model, FlowLevels(shift))


@node("ModelSamplingAuraFlow", category="advanced/model")
def flow_aura(model: Model, shift: Shift = 1.73) -> Model:
    """Have a network be a rectified flow that is told of the noise level itself."""
    return _flow(model, FlowLevels(shift, multiplier=1.0))


@node("ModelSamplingFlux", category="advanced/model")
def flow_flux(
    model: Model, max_shift: Shift = 1.15, base_shift: Shift = 0.5, width: Side = 1024, height: Side = 1024
) -> Model:
    """Have a network be a rectified flow whose shift grows with the size of the picture."""
    low, high = FLUX_TOKENS
    tokens = width * height / (16 * 16)
    mu = base_shift + (max_shift - base_shift) * (tokens - low) / (high - low)
    return _flow(model, FlowLevels(math.exp(mu), multiplier=1.0, entries=10000))


def _continuous(model: Model, prediction: Prediction, levels: ContinuousLevels) -> Model:
    if not 0 < levels.lowest < levels.highest:
        raise ValueError(
            f"sigma_min {levels.lowest:g}, sigma_max {levels.highest:g}: expected both above 0, and the first smaller"
        )
    return replace(model, prediction=prediction, levels=levels)


def _flow(model: Model, levels: FlowLevels) -> Model:
    if not levels.shift > 0:
        raise ValueError(f"shift {levels.shift:g}: expected more than 0; 1 shifts nothing")
    if model.architecture in MULTIPLIERS:
        levels = replace(levels, multiplier=MULTIPLIERS[model.architecture])
    return replace(model, prediction="flow", levels=levels)
