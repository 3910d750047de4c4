"""How noise becomes a picture: samplers as pure steps, by family, and a table of them by name."""

from nodes.maths.samplers.contract import (
    Denoiser,
    Guided,
    NoiseKind,
    NoiseSampler,
    NoiseSource,
    Sampler,
    State,
    as_guided,
)
from nodes.maths.samplers.table import SAMPLERS, SamplerSpec, advance, lookahead, settings_for

__all__ = [
    "SAMPLERS",
    "Denoiser",
    "Guided",
    "NoiseKind",
    "NoiseSampler",
    "NoiseSource",
    "Sampler",
    "SamplerSpec",
    "State",
    "advance",
    "lookahead",
    "as_guided",
    "settings_for",
]
