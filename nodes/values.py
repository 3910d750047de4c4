"""The values that travel between diffusion nodes, with their shapes and ranges. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from graph.values import Value

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from nodes.grounded_prompts import Grounding
    from nodes.network_patches import NetworkPatch
    from nodes.picture_prompts import PicturePrompt
    from nodes.rules import GuidanceRule, Memory
    from nodes.weight_patches import Patch

Variant = Literal["plain", "inpainting", "pix2pix", "unCLIP"]
"""What a network takes beside the noisy latent: nothing; a mask and a picture without the masked area; a picture; what
CLIP says of a picture."""
Architecture = Literal["U-Net", "SD 3", "Flux"]
"""Which kind of network denoises: a U-Net, or a diffusion transformer of one of these families."""
Told = Literal["nothing", "sizes", "sizes and score", "pooled", "pooled and guidance"]
"""What a network is told beside the states of a text: nothing; with its pooled state, SDXL's sizes or the refiner's;
that state alone; or with it how strongly to follow the text."""
Scale = float | tuple[float, ...]
"""One number, or one for each channel of a latent."""
Prediction = Literal["epsilon", "v_prediction", "sample", "edm", "img_to_img", "lcm", "flow", "cosmos_rflow"]


class ShapeError(ValueError):
    """A value was made with a tensor of another shape than its type has."""

    def __init__(self, kind: str, expected: str, found: tuple[int, ...]) -> None:
        super().__init__(f"{kind} is a tensor of shape [{expected}], but this one has shape {list(found)}")


def _check(kind: str, tensor: Tensor, expected: str, rank: int, last: tuple[int, ...] = ()) -> None:
    if tensor.ndim != rank or (last and tensor.shape[-1] not in last):
        raise ShapeError(kind, expected, tuple(tensor.shape))


@dataclass(frozen=True, slots=True)
class Weights:
    """Which weights: a folder or file and the identity of its content. Never the weights themselves.

    Of a file that holds several networks, `part` is how the names of this one start. `patches` change the weights, in
    their order; the identity is that of what comes of it, and `unpatched` the one before the first of them.
    """

    path: Path
    identity: str
    name: str
    part: str = ""
    patches: tuple[Patch, ...] = ()
    unpatched: str = ""


@dataclass(frozen=True, slots=True)
class PreviewMap:
    """How latents look, roughly: red, green and blue (0…1) are `latent @ weight + bias`, at the network's scale.

    `weight` has a row for each channel.
    """

    weight: tuple[tuple[float, float, float], ...]
    bias: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class ContinuousLevels:
    """Noise levels of a network that was trained on all between two; `time` is how it is told of one."""

    lowest: float
    highest: float
    sigma_data: float = 1.0
    time: Literal["log", "arctan", "share"] = "log"


@dataclass(frozen=True, slots=True)
class FlowLevels:
    """Noise levels of a rectified flow, shifted towards noise; the network is told sigma times `multiplier`."""

    shift: float
    multiplier: float = 1000.0
    entries: int = 1000


@dataclass(frozen=True, slots=True)
class Model(Value, kind="MODEL"):
    """A reference to a denoising network and how it was trained to predict.

    Betas run from `beta_start` to `beta_end` over `timesteps` steps, of which `distilled` are known where that is not
    0; `levels` stand in their place for other kinds of training. (latent - `latent_shift`) · `latent_scale` takes a
    VAE's latent into the range the network was trained on (0.18215 for Stable Diffusion 1). `preview` comes with some
    models. `guidance` are rules that change how it is guided, applied in their order;
    `network_patches` change how its network computes. `picture_statistics` are the mean and the spread of what CLIP
    says of pictures, where the network is told that. With `differential` (0…1, the strength), a noise mask says from
    when on a pixel may change: the whiter, the sooner. Its network, of an `architecture`, computes in `precision`,
    where that is stated.
    Its weights are rounded to `rounded_to`, where that is stated.
    """

    weights: Weights
    prediction: Prediction = "epsilon"
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: Literal["scaled_linear", "linear"] = "scaled_linear"
    timesteps: int = 1000
    zero_terminal_snr: bool = False
    latent_scale: Scale = 0.18215
    latent_channels: int = 4
    preview: PreviewMap | None = None
    distilled: int = 0
    levels: ContinuousLevels | FlowLevels | None = None
    latent_shift: Scale = 0.0
    variant: Variant = "plain"
    told: Told = "nothing"
    guidance: tuple[GuidanceRule, ...] = ()
    network_patches: tuple[NetworkPatch, ...] = ()
    picture_statistics: Weights | None = None
    differential: float | None = None
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    rounded_to: Literal["fp8_e4m3fn", "fp8_e5m2"] | None = None
    architecture: Architecture = "U-Net"


Tower = Literal["CLIP-L", "CLIP-H", "CLIP-G", "T5"]
"""Which text encoder: OpenAI's CLIP, OpenCLIP's of Stable Diffusion 2 or of SDXL, or the encoder of a T5."""
Joined = Literal["side by side", "SD 3", "Flux"]
"""What is made of the states of several text encoders. Side by side: all that a token has, as many as the shorter has,
and the last one's pooled state. SD 3: those of both CLIPs side by side, filled up with zeros and followed by T5's, and
both pooled states. Flux: T5's states, and CLIP's pooled one."""


@dataclass(frozen=True, slots=True)
class Clip(Value, kind="CLIP"):
    """A reference to a text encoder with its tokenizer. `layer` is the hidden layer to take: -1 is the last.

    `normed`: its states go through the final norm, whichever layer they are from. `left_out` layers at the end are in
    no file, and count all the same. A chunk is filled up with the token `pad`, or the tokenizer's own. `projected`: the
    pooled state is. `further` encoders, which have no further ones themselves, work with this one; how, `joined` says.
    `absent`: the model has none in its file, which is no matter until one is asked for.
    """

    weights: Weights
    tokenizer: Weights
    layer: int = -1
    normed: bool = True
    left_out: int = 0
    pad: int | None = None
    projected: bool = False
    tower: Tower = "CLIP-L"
    further: tuple[Clip, ...] = ()
    joined: Joined = "side by side"
    absent: bool = False

    @property
    def encoders(self) -> tuple[Clip, ...]:
        """This encoder, and the further ones."""
        return (self, *self.further)


@dataclass(frozen=True, slots=True)
class Vae(Value, kind="VAE"):
    """A reference to an autoencoder; `factor` pixels of a side become one latent pixel."""

    weights: Weights
    factor: int = 8
    latent_channels: int = 4


@dataclass(frozen=True, slots=True)
class Area:
    """A rectangle of a picture: in pixels of the latent, or in shares (0…1) of its sides."""

    height: float
    width: float
    top: float = 0
    left: float = 0
    shares: bool = False


@dataclass(frozen=True, slots=True)
class Sizes:
    """What SDXL is told of a picture: its size, where it was cropped, and the size aimed at, all in pixels.

    What is None follows the latent that is sampled. `score` is how pleasing it is, for the refiner.
    """

    width: int | None = None
    height: int | None = None
    crop_left: int = 0
    crop_top: int = 0
    target_width: int | None = None
    target_height: int | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture that a network of another variant is shown, as the VAE gives it, and the mask of what to paint anew."""

    picture: Float[Tensor, "batch channels height width"]
    mask: Float[Tensor, "masks mask_height mask_width"] | None = None


ControlDesign = Literal["ControlNet", "ControlNet union", "ControlLoRA", "T2I-Adapter"]


@dataclass(frozen=True, slots=True)
class ControlNet(Value, kind="CONTROL_NET"):
    """A reference to a network that steers a denoising network by a picture.

    Its picture's sides are multiples of `multiple`. A union is told by its number of which `type` the picture is, or
    not (None). `pooled`: it does not matter where in the picture something is.
    """

    weights: Weights
    design: ControlDesign = "ControlNet"
    multiple: int = 8
    pooled: bool = False
    type: int | None = None


@dataclass(frozen=True, slots=True)
class Control:
    """A picture (0…1, of any size) that steers, through which network and how much, from `start` to `end` (0…1)."""

    network: ControlNet
    picture: Float[Tensor, "batch height width 3"]
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0


@dataclass(frozen=True, slots=True)
class Prompt:
    """One encoded prompt: token states, the pooled state of the whole text, and where and when it counts.

    `strength` weighs it against other prompts, times `mask_strength` where it has a mask. It is asked about its `area`
    alone (with `area_from_mask`: about the rectangle around its mask), from `start` to `end` of the sampling (0…1).
    `controls` steer it together; with `shares_controls` they steer prompts of other sides that have none, too.
    `grounding` says what is where. `label` is what an unCLIP network is told of `pictures`, made when it is asked.
    `guidance` is how strongly a network that was distilled from guided ones is told to follow it; None: it is not told.
    `references` are pictures, as the VAE gives them, that a network of Flux is shown.
    """

    tokens: Float[Tensor, "batch tokens width"]
    pooled: Float[Tensor, "batch width"] | None = None
    strength: float = 1.0
    area: Area | None = None
    mask: Float[Tensor, "masks height width"] | None = None
    mask_strength: float = 1.0
    area_from_mask: bool = False
    start: float = 0.0
    end: float = 1.0
    sizes: Sizes | None = None
    shown: Shown | None = None
    controls: tuple[Control, ...] = ()
    shares_controls: bool = False
    pictures: tuple[PicturePrompt, ...] = ()
    grounding: Grounding | None = None
    label: Float[Tensor, "1 numbers"] | None = None
    references: tuple[Float[Tensor, "some channels height width"], ...] = ()
    guidance: float | None = 3.5

    @property
    def nbytes(self) -> int:
        shown = (self.shown.picture, self.shown.mask) if self.shown else ()
        seen = (picture.image_embeds for picture in self.pictures)
        steering = (control.picture for control in self.controls)
        tensors = (self.tokens, self.pooled, self.mask, self.label, *shown, *seen, *steering, *self.references)
        return sum(0 if tensor is None else tensor.nbytes for tensor in tensors)


@dataclass(frozen=True, slots=True)
class Conditioning(Value, kind="CONDITIONING"):
    """Encoded prompts that steer a denoiser together, each with its strength, place and time."""

    prompts: tuple[Prompt, ...]


@dataclass(frozen=True, slots=True)
class Image(Value, kind="IMAGE"):
    """Pictures, 0…1, sRGB; a fourth channel, where there is one, is opacity (not multiplied into the colours)."""

    pixels: Float[Tensor, "batch height width channels"]

    def __post_init__(self) -> None:
        _check("IMAGE", self.pixels, "batch, height, width, 3 (or 4 with alpha)", rank=4, last=(3, 4))

    @property
    def rgb(self) -> Float[Tensor, "batch height width 3"]:
        """The colours alone, as networks take them."""
        return self.pixels[..., :3]


@dataclass(frozen=True, slots=True)
class Mask(Value, kind="MASK"):
    """Masks, 0…1; 1 is the area to change."""

    values: Float[Tensor, "batch height width"]

    def __post_init__(self) -> None:
        _check("MASK", self.values, "batch, height, width", rank=3)


@dataclass(frozen=True, slots=True)
class Latent(Value, kind="LATENT"):
    """Latents as the VAE gives them (not scaled for the network).

    `noise_mask` (any size, 1 is the area to change) confines sampling; `batch_index` says which picture of a larger
    batch each sample is, so that its noise can be drawn again; `unfinished` is the sampler's state where sampling
    stopped half-way, from which the same sampler can go on exactly.
    """

    samples: Float[Tensor, "batch channels height width"]
    noise_mask: Float[Tensor, "masks 1 mask_height mask_width"] | None = None
    batch_index: tuple[int, ...] | None = None
    unfinished: SamplerState | None = None

    def __post_init__(self) -> None:
        _check("LATENT", self.samples, "batch, channels, height, width", rank=4)


@dataclass(frozen=True, slots=True)
class Noise(Value, kind="NOISE"):
    """A source of noise. `seed` None: no noise at all."""

    seed: int | None


@dataclass(frozen=True, slots=True)
class Sigmas(Value, kind="SIGMAS"):
    """Noise levels from the highest to the lowest, one more than there are steps.

    Where a schedule was cut, `ahead` are the levels that follow in it: some samplers look at them, or at where it ends.
    """

    values: tuple[float, ...]
    ahead: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class ThirdPrompt(Value, kind="THIRD_PROMPT"):
    """A prompt beside the positive and the negative one, and how the three make one prediction.

    `dual`: guided by `scale` from the negative prompt to this one, and by cfg from this to the positive one. `nested`:
    guided by cfg from this to the positive one, and by `scale` from the negative one to that. `perp_neg`: this one is
    empty; what the negative one adds to it counts `scale`-fold, as far as it is perpendicular to what the positive one
    does.
    """

    conditioning: Conditioning
    style: Literal["dual", "nested", "perp_neg"]
    scale: float


@dataclass(frozen=True, slots=True)
class Guider(Value, kind="GUIDER"):
    """What steers a sampler: a model, its prompts, and how strongly it follows them (1 needs no negative prompt)."""

    model: Model
    positive: Conditioning
    negative: Conditioning | None = None
    cfg: float = 1.0
    third: ThirdPrompt | None = None


@dataclass(frozen=True, slots=True)
class SamplerChoice(Value, kind="SAMPLER"):
    """Which sampler, and what differs from its usual settings."""

    name: str
    settings: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Origin:
    """What sampling began with: a latent (as the VAE gives it) and the noise put on it."""

    samples: Float[Tensor, "batch channels height width"]
    noise: Noise


@dataclass(frozen=True, slots=True)
class SamplerState(Value, kind="SAMPLER_STATE"):
    """Everything a sampler needs to take its next step: the noisy latent (scaled for the network) and its history.

    `draws` counts the noise taken from the sequential source so far; `interval` is the span of noise levels of a
    Brownian source; `denoised` is the last prediction of the finished latent; `network` is the identity of the weights
    it was sampled with; `origin` is known where a noise mask keeps a part of it. `settings` of the sampler are
    those that were chosen, `told` those that it has from the model and the whole schedule. `memory` is what rules of
    guidance remember of earlier steps. `ends` are the first and the last level of the whole schedule, where a noise
    mask goes by them.
    """

    x: Float[Tensor, "batch channels height width"]
    sigma: float
    sampler: str
    seed: int
    network: str
    history: tuple[Float[Tensor, "batch channels height width"], ...] = ()
    sigmas: tuple[float, ...] = ()
    draws: int = 0
    interval: tuple[float, float] | None = None
    denoised: Float[Tensor, "batch channels height width"] | None = None
    origin: Origin | None = None
    settings: tuple[tuple[str, float], ...] = ()
    told: tuple[tuple[str, float], ...] = ()
    memory: tuple[Memory, ...] = ()
    ends: tuple[float, float] | None = None
