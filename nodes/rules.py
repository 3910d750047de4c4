"""Rules that change a model's guidance: what they are told, and where they take part.

They are small frozen values that a model reference carries, and so part of the identity of every step taken with it.
Imports no torch.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from nodes.models import ModelPool
    from nodes.network_patches import NetworkPatch

    Latents = Float[Tensor, "batch channels height width"]

Side = Literal["cond", "uncond"]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What the network predicts at one point of the sampling, and how to ask it again.

    `cond` and `uncond` are denoised latents under the positive and the negative prompts; None where the negative ones
    were not needed. `scale` is that of guidance. `ask` predicts under the prompts of one side for another latent, or
    with further patches of the network. `attention` is the network's innermost one under the negative prompt, averaged
    over its heads, for rules that need it.
    `memory` is what each rule remembers of earlier evaluations. `models` has the networks.
    """

    x: Latents
    sigma: float
    scale: float
    cond: Latents
    uncond: Latents | None
    ask: Ask
    memory: MutableMapping[GuidanceRule, Memory]
    models: ModelPool
    attention: Float[Tensor, "batch queries keys"] | None = None


class Ask(Protocol):
    def __call__(self, side: Side, x: Latents, patches: Sequence[NetworkPatch] = (), /) -> Latents: ...


@dataclass(frozen=True)
class GuidanceRule:
    """A change to guidance, in three places: the predictions before it, the formula itself, or what comes of it.

    Subclasses are frozen dataclasses that override what they change. Of several formulas the last one counts.
    """

    needs_uncond: ClassVar[bool] = False
    """Whether it needs the prediction under the negative prompts even where guidance does not."""
    needs_attention: ClassVar[bool] = False

    def negative_patches(self, sigma: float) -> Sequence[NetworkPatch]:
        """How the network is changed where it is asked under the negative prompts."""
        return ()

    def before(self, found: Evaluation) -> Evaluation:
        return found

    def combine(self, found: Evaluation, uncond: Latents) -> Latents | None:
        """The guided prediction, in place of the usual formula. None: leave it to that."""
        return None

    def after(self, found: Evaluation, guided: Latents) -> Latents:
        return guided


@dataclass(frozen=True, slots=True)
class Memory:
    """What a rule remembers: a value, and the noise level it is from."""

    rule: GuidanceRule
    sigma: float
    value: Latents
