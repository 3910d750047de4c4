"""What networks take beside a latent and the states of a text: sizes and pooled text, and pictures to paint on."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pixel_unshuffle

from nodes.architectures import for_unets
from nodes.grounding import boxes_in, check_fit
from nodes.latent_scale import for_network
from nodes.maths.resize import common_upscale, fit_batch
from nodes.network_patches import Grounded, PictureAttention
from nodes.reference_tokens import check_references, reference_tokens
from nodes.values import Model, Prompt, Shown, Sizes

FACTOR = 8
"""Pixels of a side that a latent pixel stands for, where a prompt states no size."""
SCORES = {"positive": 6.0, "negative": 2.5}
"""How pleasing the refiner is told that a picture is, where a prompt does not say."""
BLANK = (0.8223, -0.6876, 0.6364, 0.1380)
"""The latent of a grey picture, scaled for the network."""


class MissingInput(ValueError):
    """A prompt lacks what the network has to be told."""

    def __init__(self, model: Model, what: str, advice: str) -> None:
        super().__init__(f"the model {model.weights.name!r} has to be {what}; {advice}")


class Told(NamedTuple):
    """The pooled state of the text, and the numbers that a network of the SDXL family is told with it.

    Or the label that an unCLIP network is told instead. And, for networks that look at pictures, who is on the
    negative side; for those with GLIGEN's layers, the boxes of `grounding.Boxes`; for Flux's, the guidance that they
    were distilled from, and the tokens of the pictures that they are shown, with their positions.
    """

    pooled: Float[Tensor, "batch width"] | None = None
    sizes: Float[Tensor, "batch numbers"] | None = None
    label: Float[Tensor, "batch numbers"] | None = None
    negative: Bool[Tensor, " batch"] | None = None
    places: Float[Tensor, "batch boxes 4"] | None = None
    phrases: Float[Tensor, "batch boxes width"] | None = None
    present: Float[Tensor, "batch boxes"] | None = None
    guidance: Float[Tensor, " batch"] | None = None
    references: Float[Tensor, "batch tokens width"] | None = None
    positions: Float[Tensor, "batch tokens 3"] | None = None

    @staticmethod
    def joined(parts: "Sequence[Told]") -> "Told":
        """Those of several prompts for one network, in one batch."""
        columns = ([tensor for tensor in column if tensor is not None] for column in zip(*parts, strict=True))
        return Told(*(torch.cat(column) if column else None for column in columns))

    @property
    def likeness(self) -> Hashable:
        """What has to be alike for prompts to share a pass: what there is, and of which shape."""
        return tuple(None if tensor is None else tensor.shape[1:] for tensor in self)

    def to(self, device: torch.device) -> "Told":
        return Told(*(None if tensor is None else tensor.to(device) for tensor in self))


def told(
    model: Model,
    prompt: Prompt,
    shape: Sequence[int],
    batch: int,
    *,
    negative: bool,
    size: tuple[int, int] | None = None,
) -> Told | None:
    """What a network is told with a prompt, for latents of a shape [batch, channels, height, width].

    Raises MissingInput when the prompt has no pooled state, and WrongReference for pictures that it cannot be shown.

    Args:
        size: height and width of the part of them that it is asked about, if not all.
    """
    check_references(model, prompt)
    found = _told(model, prompt, shape, batch, negative)
    if any(isinstance(patch, PictureAttention) for patch in model.network_patches):
        found = (found or Told())._replace(negative=torch.full((batch,), negative))
    if prompt.grounding is not None:
        for_unets(model, Grounded.made_by)
        check_fit(model.weights, prompt.grounding.gligen)
        found = (found or Told())._replace(
            **boxes_in(prompt.grounding.boxes, size or (shape[-2], shape[-1]), batch)._asdict()
        )
    return found


def _told(model: Model, prompt: Prompt, shape: Sequence[int], batch: int, negative: bool) -> Told | None:
    if model.variant == "unCLIP":
        return None if prompt.label is None else Told(label=prompt.label.expand(batch, -1))
    if model.told == "nothing":
        return None
    if prompt.pooled is None:
        raise MissingInput(model, "told the pooled state of a text", "encode the prompt with the CLIP of the model")
    if model.told in ("pooled", "pooled and guidance"):
        guidance = prompt.guidance if model.told == "pooled and guidance" else None
        stated = None if guidance is None else torch.full((batch,), guidance)
        found = Told(fit_batch(prompt.pooled, batch), guidance=stated)
        return found._replace(**reference_tokens(model, prompt, batch)._asdict()) if prompt.references else found
    sizes = prompt.sizes or Sizes()
    height = _stated(sizes.height, shape[-2] * FACTOR)
    width = _stated(sizes.width, shape[-1] * FACTOR)
    numbers: list[float] = [height, width, sizes.crop_top, sizes.crop_left]
    if model.told == "sizes and score":
        default = SCORES["negative" if negative else "positive"]
        numbers.append(default if sizes.score is None else sizes.score)
    else:
        numbers += [_stated(sizes.target_height, height), _stated(sizes.target_width, width)]
    return Told(fit_batch(prompt.pooled, batch), torch.tensor([numbers] * batch, dtype=torch.float32))


def _stated(size: int | None, otherwise: int) -> int:
    """A size of 0 is stated, too."""
    return otherwise if size is None else size


def shown(
    model: Model, prompt: Prompt, kept: Shown | None, shape: Sequence[int], batch: int
) -> Float[Tensor, "batch channels height width"] | None:
    """The channels that follow the noisy latent.

    For inpainting a mask (rounded) and a picture scaled for the network, or grey everywhere; for pix2pix a picture as
    the VAE gives it, or zeros. Networks of Flux are shown the picture first, scaled for the network, and a mask that is
    not rounded.

    Args:
        kept: the picture and mask that the latent itself brings, for prompts that bring none.
    """
    height, width = shape[-2:]
    given = prompt.shown
    if model.architecture == "Flux" and model.variant != "plain":
        return _shown_to_flux(model, given, kept, shape, batch)
    match model.variant:
        case "plain" | "unCLIP":
            return None
        case "pix2pix":
            return torch.zeros(batch, *shape[1:]) if given is None else _picture(given, height, width, batch)
        case "inpainting":
            own = given is not None and given.mask is not None
            given = given if own else kept
            if given is None or given.mask is None:
                blank = torch.tensor(BLANK)[None, :, None, None].expand(batch, -1, height, width)
                return torch.cat([torch.ones(batch, 1, height, width), blank], 1)
            # As the picture that it comes with; the latent's own covers the latent, whatever its proportions.
            mask = common_upscale(given.mask[:, None], width, height, "bilinear", "center" if own else "disabled")
            mask = fit_batch(mask.round(), batch)
            picture = for_network(model, _picture(given, height, width, batch))
            return torch.cat([mask, picture], 1)


def _shown_to_flux(
    model: Model, given: Shown | None, kept: Shown | None, shape: Sequence[int], batch: int
) -> Float[Tensor, "batch channels height width"]:
    """A picture scaled for the network, and for inpainting the pixels of a mask, of which there are many to one."""
    height, width = shape[-2:]
    own = given is not None and (given.mask is not None or model.variant == "pix2pix")
    given = given if own else kept
    picture = torch.zeros(batch, *shape[1:]) if given is None else _picture(given, height, width, batch)
    if model.variant == "pix2pix":
        return for_network(model, picture)
    if given is None or given.mask is None:
        mask = torch.ones(batch, 1, height * FACTOR, width * FACTOR)
    else:
        crop = "center" if own else "disabled"
        mask = fit_batch(common_upscale(given.mask[:, None], width * FACTOR, height * FACTOR, "bilinear", crop), batch)
    return torch.cat([for_network(model, picture), pixel_unshuffle(mask, FACTOR)], 1)


def _picture(given: Shown, height: int, width: int, batch: int) -> Tensor:
    picture = given.picture
    if picture.shape[-2:] != (height, width):
        picture = common_upscale(picture, width, height, "bilinear", "center")
    return fit_batch(picture, batch)
