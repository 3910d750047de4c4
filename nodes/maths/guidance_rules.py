"""Formulas around classifier-free guidance. C is the conditional, U the unconditional, G the guided prediction.

All are denoised latents at noise level sigma of the noisy latent x, and each sample is treated by itself.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from nodes.maths.guidance import guide
from nodes.maths.model_sampling import Latents

SAMPLE = (-3, -2, -1)


def rescaled(x: Latents, sigma: float, cond: Latents, uncond: Latents, scale: float, multiplier: float) -> Latents:
    """Guidance of velocities, brought back to the spread of the conditional one by `multiplier`, Lin et al. (2023)."""
    root = (sigma**2 + 1.0) ** 0.5
    shrunk = x / root**2
    v_cond, v_uncond = ((shrunk - denoised) * root / sigma for denoised in (cond, uncond))
    v = guide(v_cond, v_uncond, scale)
    as_cond = v * (v_cond.std(SAMPLE, keepdim=True) / v.std(SAMPLE, keepdim=True))
    return shrunk - (multiplier * as_cond + (1.0 - multiplier) * v) * sigma / root


def zero_star(x: Latents, cond: Latents, uncond: Latents, guided: Latents, scale: float) -> Latents:
    """Guidance with U scaled to where it is nearest to C, seen from x, Fan et al. (2025)."""
    towards_cond, towards_uncond = x - cond, x - uncond
    nearest = _dot(towards_cond, towards_uncond) / (_dot(towards_uncond, towards_uncond) + 1e-8)
    return guided + uncond * (nearest - 1.0) + scale * uncond * (1.0 - nearest)


def capped(cond: Latents, guided: Latents, strength: float) -> Latents:
    """No pixel's vector longer in G than in C; then times `strength`."""
    return guided * (_length(cond, (1,)) / (_length(guided, (1,)) + 1e-8)).clamp(max=1.0) * strength


def spread_as(cond: Latents, guided: Latents, share: float) -> Latents:
    """G brought back to the spread of C by a share."""
    factor = cond.std(SAMPLE, keepdim=True) / guided.std(SAMPLE, keepdim=True)
    return guided * (share * factor + (1.0 - share))


def tangential(x: Latents, cond: Latents, uncond: Latents) -> Latents:
    """U without what it has across the direction that it shares most with C, seen from x, Kwon et al. (2025).

    That direction is the first right singular vector of both as rows, which mixes them by the sine and cosine of the
    angle that makes their products diagonal.
    """
    u, c = (x - uncond).double(), (x - cond).double()
    angle = torch.atan2(2.0 * _dot(u, c), _dot(u, u) - _dot(c, c)) / 2.0
    return x - (angle.cos() * (angle.cos() * u + angle.sin() * c)).to(x.dtype)


def towards_cond(cond: Latents, uncond: Latents, guided: Latents, scale: float) -> Latents:
    """Mahiro: between G and scaled C, by how far what both agree on differs in sign from scaled U."""
    leap = cond * scale
    merged, away = ((leap + guided) / 2, uncond * scale)
    roots = (latent.abs().sqrt() * latent.sign() for latent in (away, merged))
    similar = F.cosine_similarity(*roots, dim=1).mean((-2, -1))[:, None, None, None]
    share = 2.0 * (similar + 1.0)
    return (share * guided + (4.0 - share) * leap) / 4.0


def frequencies_scaled(planes: Latents, low: float, high: float, cutoff: int) -> Latents:
    """Frequencies below `cutoff` along both axes times `low`, all others times `high`."""
    fft = cast(Any, torch.fft)
    spectrum = fft.fftshift(fft.fft2(planes.float()), dim=(-2, -1))
    factors = torch.full(planes.shape[-2:], high, device=planes.device)
    (top, height), (left, width) = ((side // 2, min(cutoff, side // 2)) for side in factors.shape)
    factors[top - height : top + height, left - width : left + width] = low
    return cast(Tensor, fft.ifft2(fft.ifftshift(spectrum * factors, dim=(-2, -1))).real).to(planes.dtype)


def projected(
    cond: Latents, uncond: Latents, difference: Latents, scale: float, eta: float, norm_threshold: float
) -> Latents:
    """C such that guidance by `scale` adds no more than `eta` of what is parallel to it, Sadat et al. (2024).

    Args:
        difference: C - U, or its running average.
        norm_threshold: the longest it may be; 0: any length.
    """
    if norm_threshold > 0:
        difference = difference * (norm_threshold / _length(difference)).clamp(max=1.0)
    direction = cond / _length(cond).clamp(min=1e-12)
    parallel = _dot(difference, direction) * direction
    return uncond + (difference - parallel) + eta * parallel + (cond - uncond) / scale


def perpendicular(cond: Latents, uncond: Latents, empty: Latents, scale: float, negative_scale: float) -> Latents:
    """Guided from E, the empty prompt's prediction, by what C adds to it without what U adds across that.

    Armandpour et al. (2023).
    """
    wanted, unwanted = cond - empty, uncond - empty
    across = unwanted - _dot(unwanted, wanted) / _dot(wanted, wanted).clamp(min=1e-30) * wanted
    return empty + scale * (wanted - negative_scale * across)


def noise_scaled(x: Latents, guided: Latents, factor: float) -> Latents:
    """The noise in x taken for `factor` times smaller than predicted, Ning et al. (2024)."""
    return x - (x - guided) / factor


def _dot(a: Latents, b: Latents) -> Tensor:
    return (a * b).sum(SAMPLE, keepdim=True)


def _length(latent: Latents, axes: tuple[int, ...] = SAMPLE) -> Tensor:
    return latent.square().sum(axes, keepdim=True).sqrt()
