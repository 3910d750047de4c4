"""Latents: empty ones, to and from pictures, masked, resized, laid over one another and mixed."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from graph.literals import Widget
from graph.node import node
from graph.values import INJECTED
from nodes.lengths import LONGEST, Crop, PixelsByEight
from nodes.models import ModelPool
from nodes.values import Image, Latent, Mask, Vae

if TYPE_CHECKING:
    from torch import Tensor

# The names stand here as types, so that listing them needs no torch; a test holds them against the tables.
UpscaleMethod = Literal["nearest-exact", "bilinear", "area", "bicubic", "bislerp"]
LatentSide = Annotated[int, Field(ge=16, le=LONGEST, description="Pixels of the picture."), Widget(step=8)]
LatentSideBySixteen = Annotated[int, Field(ge=16, le=LONGEST, description="Pixels of the picture."), Widget(step=16)]


class WrongVae(ValueError):
    """A latent has another number of channels than the VAE that is to decode it."""

    def __init__(self, vae: Vae, channels: int) -> None:
        super().__init__(
            f"the VAE {vae.weights.name!r} decodes latents of {vae.latent_channels} channels, but this one has "
            f"{channels}; use the VAE that belongs to the model it was made with"
        )
        self.vae = vae
        self.channels = channels


class PictureTooSmall(ValueError):
    """A picture is smaller than a single latent pixel."""

    def __init__(self, vae: Vae, width: int, height: int) -> None:
        super().__init__(
            f"the picture is {width}x{height}, but one latent pixel of the VAE {vae.weights.name!r} is "
            f"{vae.factor}x{vae.factor}; make it larger first, for example with ImageScale"
        )
        self.size = (width, height)


class UnlikeLatents(ValueError):
    """Two latents that are to be combined have different numbers of channels."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(
            f"one latent has {first} channels and the other {second}, so they come from different kinds of models; "
            "decode one of them and encode it again with the other's VAE"
        )
        self.channels = (first, second)


@node("EmptyLatentImage", category="latent", title="Empty Latent Image")
def empty_latent(
    width: LatentSide = 512,
    height: LatentSide = 512,
    batch_size: Annotated[int, Field(ge=1, le=4096, description="How many pictures to make at once.")] = 1,
) -> Latent:
    """Empty latents to start from: eight pixels of a picture's side become one."""
    import torch

    return Latent(torch.zeros(batch_size, 4, height // 8, width // 8))


@node("EmptySD3LatentImage", category="latent/sd3")
def empty_sd3_latent(
    width: LatentSideBySixteen = 1024,
    height: LatentSideBySixteen = 1024,
    batch_size: Annotated[int, Field(ge=1, le=4096, description="How many pictures to make at once.")] = 1,
) -> Latent:
    """Empty latents of sixteen channels, as Stable Diffusion 3, Flux and their relatives have them."""
    import torch

    return Latent(torch.zeros(batch_size, 16, height // 8, width // 8))


@node("VAEDecode", category="latent", title="VAE Decode", lane="device")
def decode(samples: Latent, vae: Vae, models: ModelPool = INJECTED) -> Image:
    """From latents to pictures."""
    refuse_wrong_vae(samples, vae)
    # Between nodes everything lies on the CPU, so that pictures from files and from networks can be mixed.
    pixels = (models.decode_latent(vae, samples.samples).cpu() + 1.0) / 2.0
    return Image(pixels.clamp(0.0, 1.0).movedim(1, -1).contiguous())


@node("VAEEncode", category="latent", title="VAE Encode", lane="device")
def encode(pixels: Image, vae: Vae, models: ModelPool = INJECTED) -> Latent:
    """From pictures to latents. Sides are cut to whole latent pixels, centred."""
    from nodes.maths.resize import crop_to_multiple

    refuse_tiny(pixels, vae)
    return Latent(_encoded(models, vae, crop_to_multiple(pixels.rgb, vae.factor, (1, 2))))


@node("VAEEncodeForInpaint", category="latent/inpaint", title="VAE Encode (for Inpainting)", lane="device")
def encode_for_inpainting(
    pixels: Image,
    vae: Vae,
    mask: Mask,
    grow_mask_by: Annotated[
        int, Field(ge=0, le=64, description="Paint so many pixels further, to hide the seam."), Widget(step=1)
    ] = 6,
    models: ModelPool = INJECTED,
) -> Latent:
    """Encode a picture with the masked area blanked out, to be painted anew. Use denoise 1."""
    from nodes.maths.masks import prepare_inpainting

    refuse_tiny(pixels, vae)
    start = prepare_inpainting(pixels.rgb, mask.values, grow_mask_by, vae.factor)
    return Latent(_encoded(models, vae, start.pixels), noise_mask=start.noise_mask)


@node("SetLatentNoiseMask", category="latent/inpaint", title="Set Latent Noise Mask")
def set_noise_mask(samples: Latent, mask: Mask) -> Latent:
    """Confine sampling to the masked area; the mask may be of any size and soft."""
    return replace(samples, noise_mask=mask.values.unsqueeze(1), unfinished=None)


@node("LatentUpscale", category="latent", title="Upscale Latent")
def upscale_latent(
    samples: Latent,
    upscale_method: UpscaleMethod = "nearest-exact",
    width: PixelsByEight = 512,
    height: PixelsByEight = 512,
    crop: Crop = "disabled",
) -> Latent:
    """Resize to a size given in pixels of the picture; a side of 0 follows the proportions."""
    from nodes.maths import resize

    if not width and not height:
        return samples
    return with_samples(samples, resize.upscale_latent(samples.samples, width, height, upscale_method, crop))


@node("LatentComposite", category="latent", title="Latent Composite")
def composite_latents(
    samples_to: Latent,
    samples_from: Latent,
    x: PixelsByEight = 0,
    y: PixelsByEight = 0,
    feather: Annotated[PixelsByEight, Field(description="Fade in over so many pixels at each inner edge.")] = 0,
) -> Latent:
    """Lay one latent over another, its corner at x, y in pixels of the picture."""
    from nodes.maths.composite import paste_latent

    refuse_unlike(samples_to, samples_from)
    return with_samples(
        samples_to, paste_latent(samples_to.samples, samples_from.samples, x // 8, y // 8, feather // 8)
    )


@node("LatentBlend", category="_for_testing", title="Latent Blend")
def blend_latents(
    samples1: Latent,
    samples2: Latent,
    blend_factor: Annotated[
        float, Field(ge=0, le=1, description="1: only the first, 0: only the second."), Widget(step=0.01)
    ] = 0.5,
) -> Latent:
    """Mix two latents; a second one of another size is resized to the first."""
    from nodes.maths import composite

    refuse_unlike(samples1, samples2)
    return with_samples(samples1, composite.blend_latents(samples1.samples, samples2.samples, blend_factor))


@node("LatentMaskBlend", category="latent", title="Latent Mask Blend")
def blend_latents_by_mask(samples1: Latent, samples2: Latent, mask: Mask) -> Latent:
    """The first latent where the mask is 0, the second where it is 1, a mixture between; sizes follow the first."""
    from nodes.maths.composite import blend_by_mask

    refuse_unlike(samples1, samples2)
    return with_samples(samples1, blend_by_mask(samples1.samples, samples2.samples, mask.values))


def _encoded(models: ModelPool, vae: Vae, pixels: "Tensor") -> "Tensor":
    """The latents of pictures in 0…1, channels last."""
    return models.encode_pixels(vae, pixels.movedim(-1, 1) * 2.0 - 1.0).cpu()


def with_samples(latent: Latent, samples: "Tensor") -> Latent:
    """The latent with other samples: sampling cannot go on from where it stopped, and in a batch that has grown the
    samples have no known place in a larger one."""
    index = latent.batch_index
    kept = index if index is not None and len(index) == samples.shape[0] else None
    return replace(latent, samples=samples, batch_index=kept, unfinished=None)


def refuse_wrong_vae(latent: Latent, vae: Vae) -> None:
    """Raise WrongVae if the VAE cannot decode the latent."""
    channels = latent.samples.shape[1]
    if channels != vae.latent_channels:
        raise WrongVae(vae, channels)


def refuse_tiny(image: Image, vae: Vae) -> None:
    """Raise PictureTooSmall if the picture is smaller than a latent pixel."""
    height, width = image.pixels.shape[1:3]
    if min(width, height) < vae.factor:
        raise PictureTooSmall(vae, width, height)


def refuse_unlike(first: Latent, second: Latent) -> None:
    """Raise UnlikeLatents if they have different numbers of channels."""
    channels = first.samples.shape[1], second.samples.shape[1]
    if channels[0] != channels[1]:
        raise UnlikeLatents(*channels)
