"""The values of prompts that are pictures: what encodes them, and what it says of them. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graph.values import Value
from nodes.values import Weights

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from nodes.ip_adapter_layout import Design


@dataclass(frozen=True, slots=True)
class ClipVision(Value, kind="CLIP_VISION"):
    """A reference to CLIP's picture encoder."""

    weights: Weights


@dataclass(frozen=True, slots=True)
class ClipVisionOutput(Value, kind="CLIP_VISION_OUTPUT"):
    """What a picture encoder says of pictures: in the space shared with texts, and its last two hidden states.

    Neither hidden state has gone through the final norm.
    """

    image_embeds: Float[Tensor, "batch width"]
    last_hidden_state: Float[Tensor, "batch places inner"]
    penultimate_hidden_states: Float[Tensor, "batch places inner"]


@dataclass(frozen=True, slots=True)
class PicturePrompt:
    """What CLIP says of pictures, for a network that is told it: how much they count, and how blurred (0…1)."""

    image_embeds: Float[Tensor, "batch width"]
    strength: float
    noise_augmentation: float


@dataclass(frozen=True, slots=True)
class IpAdapter(Value, kind="IPADAPTER"):
    """A reference to an IP-Adapter, which makes prompts of pictures for models of one family."""

    weights: Weights
    design: Design


@dataclass(frozen=True, slots=True)
class PictureTokens:
    """Pictures as tokens for cross-attention, and what stands in their place on the negative side.

    A mask (of any size, of all that is sampled) says where they count. Only the digest of all tells them from others.
    """

    digest: str
    tokens: Float[Tensor, "1 tokens width"] = field(compare=False)
    negative: Float[Tensor, "1 tokens width"] = field(compare=False)
    mask: Float[Tensor, "1 height width"] | None = field(default=None, compare=False)
