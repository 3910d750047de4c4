"""Prompts for networks that take more than a text: SDXL's sizes, pictures to paint on and to edit."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, NamedTuple

from pydantic import Field

from graph.folders import Folders
from graph.literals import Between
from graph.node import node
from graph.values import INJECTED
from nodes.latents import refuse_tiny
from nodes.lengths import LONGEST
from nodes.models import ModelPool
from nodes.text import PromptText
from nodes.values import Clip, Conditioning, Image, Latent, Mask, Shown, Sizes, Vae

if TYPE_CHECKING:
    from torch import Tensor

Pixels = Annotated[int, Field(ge=0, le=LONGEST, description="Told to the network, in pixels.")]
Score = Annotated[float, Between(0, 1000, "How pleasing the network is told that the picture is.", step=0.01)]


class Prepared(NamedTuple):
    """Prompts that show the network a picture, and the latent to start from."""

    positive: Conditioning
    negative: Conditioning
    latent: Latent


@node("CLIPTextEncodeSDXL", category="advanced/conditioning", lane="device")
def encode_text_sdxl(
    clip: Clip,
    *,
    width: Pixels = 1024,
    height: Pixels = 1024,
    crop_w: Pixels = 0,
    crop_h: Pixels = 0,
    target_width: Pixels = 1024,
    target_height: Pixels = 1024,
    text_g: PromptText,
    text_l: PromptText,
    models: ModelPool = INJECTED,
    folders: Folders = INJECTED,
) -> Conditioning:
    """Encode a text for each of SDXL's encoders, and state the sizes that the network is told."""
    from nodes.text_encoding import encode_prompt

    sizes = Sizes(width, height, crop_w, crop_h, target_width, target_height)
    return _told(encode_prompt(models, clip, {"CLIP-L": text_l, "CLIP-G": text_g}, folders), sizes)


@node("CLIPTextEncodeSDXLRefiner", category="advanced/conditioning", lane="device")
def encode_text_refiner(
    *,
    ascore: Score = 6.0,
    width: Pixels = 1024,
    height: Pixels = 1024,
    text: PromptText,
    clip: Clip,
    models: ModelPool = INJECTED,
    folders: Folders = INJECTED,
) -> Conditioning:
    """Encode a text for SDXL's refiner, and state the size and the score that the network is told."""
    from nodes.text_encoding import encode_prompt

    return _told(encode_prompt(models, clip, text, folders=folders), Sizes(width, height, score=ascore))


def _told(conditioning: Conditioning, sizes: Sizes) -> Conditioning:
    return Conditioning(tuple(replace(prompt, sizes=sizes) for prompt in conditioning.prompts))


@node("InpaintModelConditioning", category="conditioning/inpaint", lane="device")
def inpaint_conditioning(
    positive: Conditioning,
    negative: Conditioning,
    vae: Vae,
    pixels: Image,
    mask: Mask,
    noise_mask: Annotated[bool, Field(description="Keep the rest of the picture exactly, too.")] = True,
    models: ModelPool = INJECTED,
) -> Prepared:
    """Show a network made for inpainting the picture without the masked area, and the mask."""
    from nodes.maths.masks import prepare_inpainting
    from nodes.maths.resize import crop_to_multiple, resize_mask

    refuse_tiny(pixels, vae)
    blanked = prepare_inpainting(pixels.rgb, mask.values, 0, vae.factor).pixels
    whole = crop_to_multiple(pixels.rgb, vae.factor, (1, 2))
    height, width = pixels.pixels.shape[1:3]
    soft = crop_to_multiple(resize_mask(mask.values, width, height), vae.factor, (2, 3))
    shown = Shown(_encoded(models, vae, blanked), soft[:, 0])
    latent = Latent(_encoded(models, vae, whole), noise_mask=soft if noise_mask else None)
    return Prepared(_showing(positive, shown), _showing(negative, shown), latent)


@node("InstructPixToPixConditioning", category="conditioning/instructpix2pix", lane="device")
def pix2pix_conditioning(
    positive: Conditioning, negative: Conditioning, vae: Vae, pixels: Image, models: ModelPool = INJECTED
) -> Prepared:
    """Show a network made for editing by instructions the picture to edit (InstructPix2Pix, Brooks et al. 2023)."""
    import torch

    from nodes.maths.resize import crop_to_multiple

    refuse_tiny(pixels, vae)
    samples = _encoded(models, vae, crop_to_multiple(pixels.rgb, vae.factor, (1, 2)))
    shown = Shown(samples)
    return Prepared(_showing(positive, shown), _showing(negative, shown), Latent(torch.zeros_like(samples)))


def _encoded(models: ModelPool, vae: Vae, pixels: "Tensor") -> "Tensor":
    return models.encode_pixels(vae, pixels.movedim(-1, 1) * 2.0 - 1.0).cpu()


def _showing(conditioning: Conditioning, shown: Shown) -> Conditioning:
    return Conditioning(tuple(replace(prompt, shown=shown) for prompt in conditioning.prompts))
