"""Change a prediction in the direction in which a network's score of the decoded picture grows."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from nodes.latent_scale import for_vae
from nodes.materialise import DTYPES
from nodes.maths.model_sampling import Latents
from nodes.models import ModelPool
from nodes.rules import Evaluation
from nodes.vision import seeing

if TYPE_CHECKING:
    from nodes.vision.guidance import SeenAs

Scores = Float[Tensor, " batch"]
NUDGE = 0.05
"""How far the noisy latent is moved to see how the prediction follows, in parts of the noise."""


def steered(rule: "SeenAs", found: Evaluation, guided: Latents) -> Latents:
    """The prediction with strength · sigma² · ∇ log p(score | x) added, in terms of noise that is added to a latent.

    Without the network's part of the gradient the prediction is taken to follow x as that of latents of variance 1
    does: sigma² / (1 + sigma²), Song et al. (2023).
    """

    def score(latent: Latents) -> Scores:
        return _score(found.models, rule, latent)

    gradient = slope(score, guided)
    if rule.through_network:
        step = rule.strength * _through(rule, found, gradient)
    else:
        signal = (1.0 - found.sigma) ** 2 if rule.flow else 1.0
        step = rule.strength * found.sigma**2 / (found.sigma**2 + signal) * gradient
    return guided + step


def slope(score: Callable[[Latents], Scores], latent: Latents) -> Latents:
    """The gradient of each sample's score, one sample after another, so that memory is bounded."""
    parts: list[Tensor] = []
    for sample in torch.split(latent, 1):
        with torch.enable_grad():
            # What comes from a network in inference mode cannot be differentiated; a copy of it can.
            leaf = sample.detach().clone().requires_grad_()
            (part,) = torch.autograd.grad(score(leaf).sum(), leaf)
        parts.append(part)
    return torch.cat(parts)


def _through(rule: "SeenAs", found: Evaluation, gradient: Latents) -> Latents:
    """sigma² · J·gradient, where J says how the prediction follows x.

    J is the Hessian of a log-density and therefore symmetric: its product from the left is that from the right, which
    is a difference of two predictions.
    """
    length = gradient.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-30)
    nudge = NUDGE * found.sigma / length
    change = (found.ask("cond", found.x + nudge * gradient) - found.cond) / nudge
    return found.sigma**2 * change / (max(1.0 - found.sigma, 1e-3) if rule.flow else 1.0)


def _score(models: ModelPool, rule: "SeenAs", latent: Latents) -> Scores:
    """Of latents at the scale of the model's network."""
    module = cast(Any, models.vae(rule.vae))
    unscaled = for_vae(rule, latent).to(DTYPES[models.vae_precision(rule.vae).dtype])
    planes = (module.decode(unscaled, return_dict=False)[0].float() + 1.0) / 2.0
    if rule.label is not None:
        return seeing.logits(models, rule.vision, planes, exact=False).log_softmax(1)[:, rule.label]
    seen = seeing.picture_directions(models, rule.vision, planes, exact=False)
    said = seeing.text_directions(models, rule.vision, [rule.text])
    return seeing.scale(models, rule.vision) * (seen * said).sum(1)
