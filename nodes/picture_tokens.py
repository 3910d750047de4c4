"""Make tokens of pictures with an IP-Adapter's projection, Ye et al. (2023)."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch import device as Device
from torch.nn import Module

from graph.collector import collector_paused
from graph.identity import digest
from nodes.ip_adapter_layout import PICTURES, projection_plan
from nodes.materialise import Kind, load_network
from nodes.models import ModelPool
from nodes.picture_encoding import encode_nothing, encode_pictures
from nodes.picture_prompts import ClipVision, ClipVisionOutput, IpAdapter, PictureTokens
from nodes.precision import Precision
from nodes.weight_places import Place

Combine = Literal["concat", "average"]
Pixels = Float[Tensor, "batch height width 3"]

PICTURE_PROJECTION = Kind("", projection_plan, lambda name: (Place(name),))
PRECISION = Precision("fp32", False, "a picture is projected once, and exactly")


class WrongEncoder(ValueError):
    """Pictures were encoded by another network than the adapter was trained with."""

    def __init__(self, adapter: IpAdapter, encoder: ClipVision, expected: int, found: int) -> None:
        super().__init__(
            f"the IP-Adapter {adapter.weights.name!r} ({adapter.design}) takes pictures encoded into {expected} "
            f"numbers, but {encoder.weights.name!r} makes {found}; choose the picture encoder it was trained with"
        )


def picture_tokens(
    models: ModelPool,
    adapter: IpAdapter,
    encoder: ClipVision,
    pixels: Pixels,
    unlike: Pixels | None = None,
    combine: Combine = "concat",
    mask: Float[Tensor, "1 mask_height mask_width"] | None = None,
) -> PictureTokens:
    """Tokens of pictures of 0…1, the middle of which is looked at.

    Args:
        unlike: pictures for the negative side; by default as in training, when there was none.
        combine: whether several pictures give tokens of their own, or of their average.
        mask: where they count, 0…1; None: everywhere.
    """
    seen = _features(adapter, encode_pictures(models, encoder, pixels, crop=True))
    if unlike is not None:
        away = _features(adapter, encode_pictures(models, encoder, unlike, crop=True))
    elif adapter.design == "base":
        away = torch.zeros_like(seen[:1])
    else:
        away = _features(adapter, encode_nothing(models, encoder))
    module = _projection(models, adapter)
    expected = _width(module)
    if seen.shape[-1] != expected:
        raise WrongEncoder(adapter, encoder, expected, seen.shape[-1])
    with torch.no_grad():
        own, other = (_tokens(module(_combined(each, combine).to(models.device))) for each in (seen, away))
    # As many on either side: what is repeated as a whole is attended to as if it stood there once.
    common = math.lcm(own.shape[1], other.shape[1])
    own, other = (each.repeat(1, common // each.shape[1], 1) for each in (own, other))
    where = b"" if mask is None else _bytes(mask)
    return PictureTokens(digest(b"picture tokens", _bytes(own), _bytes(other), where).hex(), own, other, mask)


def _features(adapter: IpAdapter, seen: ClipVisionOutput) -> Tensor:
    """What the projection takes: the picture as a whole, or its parts before the encoder's last layer."""
    return seen.image_embeds if adapter.design == "base" else seen.penultimate_hidden_states


def _combined(features: Tensor, combine: Combine) -> Tensor:
    return features.mean(0, keepdim=True) if combine == "average" else features


def _tokens(found: Tensor) -> Float[Tensor, "1 tokens width"]:
    return found.reshape(1, -1, found.shape[-1]).cpu()


def _bytes(tensor: Tensor) -> bytes:
    return cast(Any, tensor.contiguous()).numpy().tobytes()


def _width(module: Any) -> int:
    first = next(name for name in ("image_embeds", "proj_in", "ff") if hasattr(module, name))
    layer = getattr(module, first)
    return (layer.net[0].proj if first == "ff" else layer).in_features


def _projection(models: ModelPool, adapter: IpAdapter) -> Any:
    weights = replace(adapter.weights, part=PICTURES)

    def load(device: Device) -> Module:
        with collector_paused():
            from diffusers.models import embeddings

        made: Any = embeddings
        designs = {
            "base": made.ImageProjection,
            "plus": made.IPAdapterPlusImageProjection,
            "full face": made.IPAdapterFullImageProjection,
        }

        def build(config: Mapping[str, Any]) -> Module:
            settings = dict(config)
            return designs[settings.pop("design")](**settings)

        return load_network(weights, PICTURE_PROJECTION, build, PRECISION, device)

    return models.network(weights, "picture projection", PRECISION, load)
