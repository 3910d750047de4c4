"""Rules that change a model's guidance, each with the node that gives it to a model."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, NamedTuple

from pydantic import Field

from graph.literals import Between, Widget
from graph.node import node
from nodes.rules import Evaluation, GuidanceRule, Memory
from nodes.values import Model

if TYPE_CHECKING:
    from nodes.rules import Latents


class PatchedModel(NamedTuple):
    patched_model: Model


@dataclass(frozen=True)
class Rescale(GuidanceRule):
    multiplier: float

    def combine(self, found: Evaluation, uncond: "Latents") -> "Latents":
        from nodes.maths.guidance_rules import rescaled

        return rescaled(found.x, found.sigma, found.cond, uncond, found.scale, self.multiplier)


@dataclass(frozen=True)
class ZeroStar(GuidanceRule):
    def after(self, found: Evaluation, guided: "Latents") -> "Latents":
        from nodes.maths.guidance_rules import zero_star

        return guided if found.uncond is None else zero_star(found.x, found.cond, found.uncond, guided, found.scale)


@dataclass(frozen=True)
class Capped(GuidanceRule):
    strength: float

    def after(self, found: Evaluation, guided: "Latents") -> "Latents":
        from nodes.maths.guidance_rules import capped

        return capped(found.cond, guided, self.strength)


@dataclass(frozen=True)
class Tangential(GuidanceRule):
    def before(self, found: Evaluation) -> Evaluation:
        from nodes.maths.guidance_rules import tangential

        return found if found.uncond is None else replace(found, uncond=tangential(found.x, found.cond, found.uncond))


@dataclass(frozen=True)
class TowardsCond(GuidanceRule):
    def after(self, found: Evaluation, guided: "Latents") -> "Latents":
        from nodes.maths.guidance_rules import towards_cond

        return guided if found.uncond is None else towards_cond(found.cond, found.uncond, guided, found.scale)


@dataclass(frozen=True)
class FrequenciesScaled(GuidanceRule):
    low: float
    high: float
    cutoff: int

    def before(self, found: Evaluation) -> Evaluation:
        from nodes.maths.guidance_rules import frequencies_scaled

        if found.uncond is None:
            return found
        difference = frequencies_scaled(found.cond - found.uncond, self.low, self.high, self.cutoff)
        return replace(found, cond=difference + found.uncond)


@dataclass(frozen=True)
class NoiseScaled(GuidanceRule):
    factor: float

    def after(self, found: Evaluation, guided: "Latents") -> "Latents":
        from nodes.maths.guidance_rules import noise_scaled

        return noise_scaled(found.x, guided, self.factor)


@dataclass(frozen=True)
class Projected(GuidanceRule):
    """Remembers the running sum of what guidance adds, until the noise level rises again."""

    eta: float
    norm_threshold: float
    momentum: float

    def before(self, found: Evaluation) -> Evaluation:
        from nodes.maths.guidance_rules import projected

        if found.uncond is None or not found.scale:
            return found
        difference = found.cond - found.uncond
        if self.momentum:
            earlier = found.memory.get(self)
            if earlier is not None and found.sigma <= earlier.sigma:
                difference = self.momentum * earlier.value.to(difference) + difference
            found.memory[self] = Memory(self, found.sigma, difference)
        cond = projected(found.cond, found.uncond, difference, found.scale, self.eta, self.norm_threshold)
        return replace(found, cond=cond)


@node("RescaleCFG", category="advanced/model")
def rescale_cfg(
    model: Model,
    multiplier: Annotated[
        float, Between(0, 1, "0: guidance as ever; 1: no more contrast than without.", step=0.01)
    ] = 0.7,
) -> Model:
    """Keep strong guidance from overexposing: its velocity gets the spread of the conditional one (Lin et al. 2023)."""
    return guided_by(model, Rescale(multiplier))


@node("CFGZeroStar", category="advanced/guidance")
def cfg_zero_star(model: Model) -> PatchedModel:
    """Guide away from the negative prediction scaled to fit the positive one, CFG-Zero* (Fan et al. 2025)."""
    return PatchedModel(guided_by(model, ZeroStar()))


@node("CFGNorm", category="advanced/guidance", stage="experimental")
def cfg_norm(
    model: Model,
    strength: Annotated[float, Between(0, 100, "What the prediction is multiplied by.", step=0.01)] = 1.0,
) -> PatchedModel:
    """Let guidance make no pixel's vector longer than it is without."""
    return PatchedModel(guided_by(model, Capped(strength)))


@node("TCFG", category="advanced/guidance")
def tcfg(model: Model) -> PatchedModel:
    """Drop from the negative prediction what it does not share with the positive one (Kwon et al. 2025)."""
    return PatchedModel(guided_by(model, Tangential()))


@node("Mahiro", category="_for_testing", stage="experimental")
def mahiro(model: Model) -> PatchedModel:
    """Follow the prompt's direction more than its difference from the negative one, where both are alike."""
    return PatchedModel(guided_by(model, TowardsCond()))


@node("FreSca", category="_for_testing", stage="experimental")
def fresca(
    model: Model,
    scale_low: Annotated[float, Between(0, 10, "Of low frequencies: layout and large shapes.", step=0.01)] = 1.0,
    scale_high: Annotated[float, Between(0, 10, "Of high frequencies: detail and texture.", step=0.01)] = 1.25,
    freq_cutoff: Annotated[int, Between(1, 10000, "How many frequencies from the centre count as low.", step=1)] = 20,
) -> Model:
    """Scale what guidance adds by its frequencies (Huang et al. 2025)."""
    return guided_by(model, FrequenciesScaled(scale_low, scale_high, freq_cutoff))


@node("Epsilon Scaling", category="model_patches/unet")
def epsilon_scaling(
    model: Model,
    scaling_factor: Annotated[
        float,
        Field(ge=0.5, le=1.5, description="What the predicted noise is divided by."),
        Widget(step=0.001, display="number"),
    ] = 1.005,
) -> Model:
    """Predict a little less noise, against the error that adds up over the steps (Ning et al. 2024)."""
    return guided_by(model, NoiseScaled(scaling_factor))


@node("APG", category="sampling/custom_sampling")
def apg(
    model: Model,
    eta: Annotated[
        float, Between(-10, 10, "How much of what is parallel to the prediction is kept; 1 keeps all.", step=0.01)
    ] = 1.0,
    norm_threshold: Annotated[
        float, Between(0, 50, "The longest that what guidance adds may be; 0: any length.", step=0.1)
    ] = 5.0,
    momentum: Annotated[
        float, Between(-5, 1, "How much of the earlier steps' is added; below 0 it is taken away.", step=0.01)
    ] = 0.0,
) -> Model:
    """Strong guidance without oversaturation: adaptive projected guidance (Sadat et al. 2024)."""
    return guided_by(model, Projected(eta, norm_threshold, momentum))


def guided_by(model: Model, rule: GuidanceRule) -> Model:
    """The model with a rule more, which is applied after those it has."""
    return replace(model, guidance=(*model.guidance, rule))
