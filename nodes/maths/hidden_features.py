"""Changes to what lies between the layers of a U-Net: backbone, skip connections, tokens, attention."""

from collections.abc import Callable
from random import Random
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nodes.maths.filters import separable
from nodes.maths.guidance_rules import frequencies_scaled
from nodes.maths.model_sampling import Latents

Tokens = Float[Tensor, "batch tokens width"]
BLUR_RADIUS = 4


def free_u(hidden: Latents, skip: Latents, backbone: float, low: float, by_mean: bool) -> tuple[Latents, Latents]:
    """Half of the backbone's channels scaled, and the lowest frequencies of the skip connection, Si et al. (2023).

    Args:
        by_mean: scale each place by its mean over the channels, between 1 and `backbone`.
    """
    factor: Tensor | float = backbone
    if by_mean:
        mean = hidden.mean(1, keepdim=True)
        lowest, highest = mean.amin((2, 3), keepdim=True), mean.amax((2, 3), keepdim=True)
        factor = (backbone - 1.0) * (mean - lowest) / (highest - lowest) + 1.0
    half = hidden.shape[1] // 2
    scaled = torch.cat([hidden[:, :half] * factor, hidden[:, half:]], dim=1)
    return scaled, frequencies_scaled(skip, low, 1.0, 1)


def blurred_where_attended(denoised: Latents, attention: Float[Tensor, "batch queries keys"], sigma: float) -> Latents:
    """A Gaussian blur (9 × 9) where the places together attend to one by more than 1, Hong et al. (2023).

    Args:
        attention: of a grid of places in proportion to the latent, each query's sum being 1.
        sigma: in pixels of the latent; 0 blurs nothing.
    """
    if not sigma:
        return denoised
    places = attention.sum(1) > 1.0
    rows, columns = _grid(places.shape[1], denoised.shape[-2] / denoised.shape[-1])
    mask = F.interpolate(places.reshape(-1, 1, rows, columns).to(denoised.dtype), size=denoised.shape[-2:])
    bell = (-torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1).float().square() / (2 * sigma**2)).exp()
    return separable(denoised, bell / bell.sum()) * mask + denoised * (1.0 - mask)


def _grid(places: int, proportion: float) -> tuple[int, int]:
    """Rows and columns of so many places, their quotient nearest to a proportion."""
    rows = round((proportion * places) ** 0.5)
    candidates = (row for step in range(places) for row in (rows + step, rows - step))
    found = next(row for row in candidates if row > 0 and places % row == 0)
    return found, places // found


class Merged(NamedTuple):
    """Fewer tokens, and how to have as many as before."""

    tokens: Tokens
    unmerge: Callable[[Tokens], Tokens]


def merged_tokens(tokens: Tokens, height: int, width: int, ratio: float, seed: int) -> Merged:
    """A share of the tokens averaged into those most like them, one of every 2 × 2, Bolya and Hoffman (2023).

    Args:
        seed: chooses which of every 2 × 2 the others are merged into; at most the other three are.
    """
    targets, sources = (part.to(tokens.device) for part in _targets(height, width, seed))
    count = min(int(tokens.shape[1] * ratio), len(sources))
    unit = F.normalize(tokens, dim=-1)
    likeness, closest = (unit[:, sources] @ unit[:, targets].mT).max(-1)
    order = likeness.argsort(-1, descending=True)
    gone, kept = order[:, :count], order[:, count:]
    into = closest.gather(1, gone)
    gone, kept = sources[gone], sources[kept]

    def wide(indices: Tensor) -> Tensor:
        return indices[..., None].expand(-1, -1, tokens.shape[-1])

    averaged = tokens[:, targets].scatter_reduce(1, wide(into), tokens.gather(1, wide(gone)), "mean")

    def unmerge(fewer: Tokens) -> Tokens:
        alone, shared = fewer[:, : kept.shape[1]], fewer[:, kept.shape[1] :]
        whole = fewer.new_empty(len(fewer), tokens.shape[1], fewer.shape[-1])
        whole[:, targets] = shared
        return whole.scatter(1, wide(kept), alone).scatter(1, wide(gone), shared.gather(1, wide(into)))

    return Merged(torch.cat([tokens.gather(1, wide(kept)), averaged], dim=1), unmerge)


def _targets(height: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """The places of one token of every 2 × 2, and of all others."""
    rows, columns = height // 2, width // 2
    chosen = torch.randint(4, (rows, columns), generator=torch.Generator().manual_seed(seed))
    target = torch.zeros(height, width, dtype=torch.bool)
    down, right = 2 * torch.arange(rows)[:, None] + chosen // 2, 2 * torch.arange(columns) + chosen % 2
    target[down, right] = True
    return target.flatten().nonzero()[:, 0], target.logical_not().flatten().nonzero()[:, 0]


def tile_count(length: int, smallest: int, options: int, choice: str) -> int:
    """Into how many equal tiles, none smaller than `smallest`, to cut a length.

    Of so many largest numbers all but the last are eligible, as in the reference; `choice` (any text) decides.
    """
    sizes = [size for size in range(min(smallest, length), length + 1) if length % size == 0][:options]
    counts = [length // size for size in sizes]
    return counts[Random(choice).randrange(max(1, len(counts) - 1))]


def tiled(tokens: Tokens, height: int, width: int, rows: int, columns: int) -> Float[Tensor, "tiles part width"]:
    """The tokens of a grid cut into rows × columns tiles, each a sample of its own."""
    grid = tokens.reshape(-1, rows, height // rows, columns, width // columns, tokens.shape[-1])
    return grid.transpose(2, 3).reshape(-1, height * width // (rows * columns), tokens.shape[-1])


def untiled(tiles: Float[Tensor, "tiles part width"], height: int, width: int, rows: int, columns: int) -> Tokens:
    """Tiles put together again."""
    grid = tiles.reshape(-1, rows, columns, height // rows, width // columns, tiles.shape[-1])
    return grid.transpose(2, 3).reshape(-1, height * width, tiles.shape[-1])
