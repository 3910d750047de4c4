"""Filters of latents as values: applied at once, or to what guidance adds at every step."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from graph.literals import Widget
from graph.node import node
from graph.values import Value
from nodes.guidance import guided_by
from nodes.rules import Evaluation, GuidanceRule
from nodes.values import Latent, Model

if TYPE_CHECKING:
    from nodes.rules import Latents


@dataclass(frozen=True)
class LatentOperation(Value, kind="LATENT_OPERATION"):
    """A function of latents. Subclasses are frozen dataclasses that override `apply`."""

    def apply(self, latent: "Latents") -> "Latents":
        return latent


@dataclass(frozen=True)
class ToneMap(LatentOperation):
    multiplier: float

    def apply(self, latent: "Latents") -> "Latents":
        from nodes.maths.latent_operations import tone_mapped

        return tone_mapped(latent, self.multiplier)


@dataclass(frozen=True)
class Sharpen(LatentOperation):
    radius: int
    sigma: float
    alpha: float

    def apply(self, latent: "Latents") -> "Latents":
        from nodes.maths.latent_operations import sharpened

        return sharpened(latent, self.radius, self.sigma, self.alpha)


@dataclass(frozen=True)
class Operated(GuidanceRule):
    """The operation on C - U; on C alone where there is no U."""

    operation: LatentOperation

    def before(self, found: Evaluation) -> Evaluation:
        if found.uncond is None:
            return replace(found, cond=self.operation.apply(found.cond))
        return replace(found, cond=self.operation.apply(found.cond - found.uncond) + found.uncond)


@node("LatentApplyOperation", category="latent/advanced/operations", stage="experimental")
def apply_operation(samples: Latent, operation: LatentOperation) -> Latent:
    """Filter latents."""
    return replace(samples, samples=operation.apply(samples.samples), unfinished=None)


@node("LatentApplyOperationCFG", category="latent/advanced/operations", stage="experimental")
def apply_operation_to_guidance(model: Model, operation: LatentOperation) -> Model:
    """Filter what guidance adds, at every step."""
    return guided_by(model, Operated(operation))


@node("LatentOperationTonemapReinhard", category="latent/advanced/operations", stage="experimental")
def tone_map(
    multiplier: Annotated[
        float, Field(ge=0, le=100, description="Where brightness levels off; lower is earlier."), Widget(step=0.01)
    ] = 1.0,
) -> LatentOperation:
    """Shorten the longest vectors of a latent: for strong guidance that does not burn out (Reinhard et al. 2002)."""
    return ToneMap(multiplier)


@node("LatentOperationSharpen", category="latent/advanced/operations", stage="experimental")
def sharpen(
    sharpen_radius: Annotated[int, Field(ge=1, le=31, description="In pixels of the latent."), Widget(step=1)] = 9,
    sigma: Annotated[
        float, Field(ge=0.1, le=10, description="The width of the bell, in radii."), Widget(step=0.1)
    ] = 1.0,
    alpha: Annotated[float, Field(ge=0, le=5, description="How much sharper."), Widget(step=0.01)] = 0.1,
) -> LatentOperation:
    """Sharpen the directions of a latent's vectors, and leave their lengths."""
    return Sharpen(sharpen_radius, sigma, alpha)
