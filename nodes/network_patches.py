"""Changes to how a U-Net computes, as references: between its layers, in its self-attention, in its resolution.

`nodes/patched_network.py` puts them into a network. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from nodes.picture_prompts import PictureTokens
    from nodes.values import Weights

Resize = Literal["bicubic", "nearest-exact", "bilinear", "area", "bislerp"]


@dataclass(frozen=True)
class NetworkPatch:
    """A change to how a network computes, from `start` to `end` of the sampling (0…1).

    `made_by` is the node that makes it, for errors.
    """

    made_by: ClassVar[str]

    @property
    def start(self) -> float:
        return 0.0

    @property
    def end(self) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class SpannedPatch(NetworkPatch):
    """One that a person gives a span of the sampling."""

    first: float
    last: float

    @property
    def start(self) -> float:
        return self.first

    @property
    def end(self) -> float:
        return self.last


@dataclass(frozen=True)
class FreeU(NetworkPatch):
    """`backbone` and `skip` factors where the backbone is four and two times as wide as the network's first layer."""

    made_by = "FreeU"

    backbone: tuple[float, float]
    skip: tuple[float, float]
    by_mean: bool


@dataclass(frozen=True)
class IdentityAttention(NetworkPatch):
    """In the innermost block no place attends to any but itself."""

    made_by = "PerturbedAttentionGuidance"


@dataclass(frozen=True)
class RecordedAttention(NetworkPatch):
    """The innermost self-attention is noted for who asks (`patched_attention.recorded`)."""

    made_by = "SelfAttentionGuidance"


@dataclass(frozen=True)
class TiledAttention(NetworkPatch):
    """Self-attention within tiles of at least `tile` places, down to `depth` halvings of the resolution."""

    made_by = "HyperTile"

    tile: int
    options: int
    depth: int
    scale_depth: bool


@dataclass(frozen=True)
class MergedTokens(NetworkPatch):
    """Self-attention at full resolution asks with a share of its tokens merged into others."""

    made_by = "TomePatchModel"

    ratio: float


@dataclass(frozen=True)
class Downscaled(SpannedPatch):
    """From an input block on, counted as in the original layout, the network works at a lower resolution."""

    made_by = "PatchModelAddDownscale"

    block: int
    factor: float
    after_skip: bool
    down: Resize
    up: Resize


@dataclass(frozen=True)
class PictureAttention(SpannedPatch):
    """Cross-attention looks at pictures beside the text, through the keys and values of an IP-Adapter."""

    made_by = "IPAdapterAdvanced"

    adapter: Weights
    pictures: PictureTokens
    weight: float


@dataclass(frozen=True)
class Grounded(NetworkPatch):
    """The layers of a GLIGEN attend to phrases in boxes."""

    made_by = "GLIGENTextBoxApply"

    gligen: Weights


@dataclass(frozen=True)
class SkippedBlocks(NetworkPatch):
    """A diffusion transformer leaves out blocks with these numbers: those of two streams, and those of one."""

    made_by = "SkipLayerGuidance"

    double: tuple[int, ...]
    single: tuple[int, ...]


@dataclass(frozen=True)
class Compiled(NetworkPatch):
    """All of the network, with its other patches, runs through torch.compile."""

    made_by = "TorchCompileModel"

    backend: str
