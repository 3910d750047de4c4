"""Passes of a network: as few as possible for all prompts, and which of a model's patches count in them."""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from nodes.added_inputs import Told
from nodes.architectures import for_unets
from nodes.control_networks import Residuals, Steering, residuals
from nodes.maths.model_sampling import Latents, ModelSampling
from nodes.maths.regions import mixed
from nodes.models import DenoiseNetwork, ModelPool
from nodes.network_patches import Grounded, NetworkPatch
from nodes.patched_attention import recorded
from nodes.placed_controls import PlacedControl
from nodes.placed_prompts import Placed
from nodes.values import Model

Attention = Float[Tensor, "batch queries keys"]
LONGEST_REPEAT = 4
"""Prompts of different length are repeated to a common one, at most this many times, to share a pass."""


class Networks:
    """A model's network under the patches that count at a noise level and others, and what steers it."""

    def __init__(self, pool: ModelPool, model: Model, sampling: ModelSampling) -> None:
        self._pool = pool
        self._model = model
        self._spans = [
            (patch, sampling.percent_to_sigma(patch.end), sampling.percent_to_sigma(patch.start))
            for patch in model.network_patches
        ]
        self._made: dict[tuple[NetworkPatch, ...], DenoiseNetwork] = {}

    def at(self, sigma: float, others: Sequence[NetworkPatch]) -> DenoiseNetwork:
        patches = self._patches(sigma, others)
        if patches not in self._made:
            self._made[patches] = self._pool.denoise_network(replace(self._model, network_patches=patches))
        return self._made[patches]

    def steered(
        self,
        sigma: float,
        others: Sequence[NetworkPatch],
        steerings: Sequence[Steering],
        x: Latents,
        timesteps: Float[Tensor, " batch"],
        tokens: Float[Tensor, "batch tokens width"],
        told: Told | None,
    ) -> Residuals:
        """What pictures add inside the network, which is asked the same."""
        for_unets(self._model, f"the ControlNet {steerings[0].network.weights.name!r}")
        found = residuals(self._pool, self._model, steerings, x, timesteps, tokens, told)
        return found.within(self._patches(sigma, others))

    def _patches(self, sigma: float, others: Sequence[NetworkPatch]) -> tuple[NetworkPatch, ...]:
        return (*(patch for patch, lowest, highest in self._spans if lowest <= sigma <= highest), *others)


def predict(
    networks: Networks,
    patches: Sequence[NetworkPatch],
    sampling: ModelSampling,
    x: Latents,
    sigma: float,
    parts: Sequence[Placed],
) -> tuple[dict[int, Latents], dict[int, Attention]]:
    """What the network predicts for each part: the denoised latent, in as few passes as sizes and lengths allow.

    And the attention it recorded, if it does. Parts that share a pass are steered alike.
    """
    scaled = sampling.scale_input(x, sigma)
    timestep = float(sampling.timestep(sigma))
    predictions: dict[int, Latents] = {}
    attention: dict[int, Attention] = {}
    for group in _passes(parts, sigma):
        network = networks.at(sigma, (*patches, *_grounded(parts[group[0]])))
        crops = [_seen(scaled, parts[at]) for at in group]
        numbers = [numbers for at in group if (numbers := parts[at].told) is not None]
        told = Told.joined(numbers) if numbers else None
        tokens = _alike([parts[at].tokens for at in group])
        times = torch.full((len(tokens),), timestep, device=x.device)
        added: Residuals | None = None
        if steerings := _steerings([parts[at].steered_by(sigma) for at in group]):
            plain = torch.cat([_crop(scaled, parts[at]) for at in group])
            added = networks.steered(sigma, patches, steerings, plain, times, tokens, told)
        with recorded() as maps:
            output = network(torch.cat(crops), times, tokens, told, added)
        for at, part in zip(group, output.chunk(len(group)), strict=True):
            predictions[at] = sampling.denoised(_crop(x, parts[at]), part, sigma)
        for seen in maps:
            attention |= zip(group, seen.chunk(len(group)), strict=True)
    return predictions, attention


def _grounded(part: Placed) -> tuple[NetworkPatch, ...]:
    grounding = part.prompt.grounding
    return () if grounding is None else (Grounded(grounding.gligen),)


def _steerings(controls: Sequence[Sequence[PlacedControl]]) -> list[Steering]:
    """The controls of parts that are steered alike, each with its pictures for all of them."""
    return [
        Steering(each[0].network, torch.cat([control.hint for control in each]), each[0].strength)
        for each in zip(*controls, strict=True)
    ]


def _seen(x: Latents, part: Placed) -> Latents:
    """What the network sees of a latent: the part's own share, and the channels that it is shown beside it."""
    return _crop(x if part.shown is None else torch.cat([x, part.shown], 1), part)


def _crop(x: Latents, part: Placed) -> Latents:
    return x if part.region is None else part.region.of(x)


def _passes(parts: Sequence[Placed], sigma: float) -> list[list[int]]:
    """Which parts share a pass: those of one size, steered and grounded alike, whose tokens fit a common length."""
    alike: dict[Hashable, list[int]] = defaultdict(list)
    for at, part in enumerate(parts):
        ways = tuple(control.way for control in part.steered_by(sigma))
        likeness = part.told and part.told.likeness
        alike[part.region and part.region.size, ways, _grounded(part), likeness].append(at)
    passes: list[list[int]] = []
    for group in alike.values():
        lengths = [parts[at].tokens.shape[1] for at in group]
        if math.lcm(*lengths) > LONGEST_REPEAT * min(lengths):
            passes += [[at] for at in group]
        else:
            passes.append(group)
    return passes


def _alike(tokens: Sequence[Float[Tensor, "batch tokens width"]]) -> Float[Tensor, "prompts*batch common width"]:
    """Prompts of one pass, repeated to a common length."""
    common = math.lcm(*(each.shape[1] for each in tokens))
    return torch.cat([each.repeat(1, common // each.shape[1], 1) for each in tokens])


def mixture(parts: Sequence[Placed], predictions: Sequence[Latents], like: Latents) -> Latents:
    return mixed(predictions, [part.weight for part in parts], [part.region for part in parts], like)
