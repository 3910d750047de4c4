"""Batches and lists: a batch is one value with several pictures in it, a list is several values."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from graph.node import Many, node
from nodes.latents import refuse_unlike
from nodes.values import Image, Latent

if TYPE_CHECKING:
    from torch import Tensor

BatchSize = Annotated[int, Field(ge=1, le=4096, description="How many go into one batch; the last may have fewer.")]


@node("ImageFromBatch", category="image/batch", title="Image From Batch")
def image_from_batch(
    image: Image,
    batch_index: Annotated[int, Field(ge=0, le=4095, description="Beyond the end it is the last picture.")] = 0,
    length: Annotated[int, Field(ge=1, le=4096, description="How many pictures, as far as there are any.")] = 1,
) -> Image:
    """Some pictures of a batch."""
    first = min(batch_index, image.pixels.shape[0] - 1)
    return Image(image.pixels[first : first + length].clone())


@node("LatentFromBatch", category="latent/batch", title="Latent From Batch")
def latent_from_batch(
    samples: Latent,
    batch_index: Annotated[int, Field(ge=0, le=63, description="Beyond the end it is the last latent.")] = 0,
    length: Annotated[int, Field(ge=1, le=64, description="How many latents, as far as there are any.")] = 1,
) -> Latent:
    """Some latents of a batch. Each gets the noise that it would get there."""
    first = min(batch_index, samples.samples.shape[0] - 1)
    return _together(_singles([samples])[first : first + length])


@node("RepeatImageBatch", category="image/batch", title="Repeat Image Batch")
def repeat_images(image: Image, amount: Annotated[int, Field(ge=1, le=4096, description="How often.")] = 1) -> Image:
    """The whole batch several times."""
    return Image(image.pixels.repeat(amount, 1, 1, 1))


@node("RepeatLatentBatch", category="latent/batch", title="Repeat Latent Batch")
def repeat_latents(samples: Latent, amount: Annotated[int, Field(ge=1, le=64, description="How often.")] = 1) -> Latent:
    """The whole batch several times; each copy gets noise of its own."""
    from nodes.maths.resize import fit_batch

    count, mask, places = samples.samples.shape[0], samples.noise_mask, samples.batch_index
    if mask is not None and mask.shape[0] > 1:
        mask = fit_batch(mask, max(count, mask.shape[0])).repeat(amount, 1, 1, 1)
    if places is not None:
        span = max(places) - min(places) + 1
        places = tuple(place + span * copy for copy in range(amount) for place in places)
    return Latent(samples.samples.repeat(amount, 1, 1, 1), mask, places)


@node("LatentBatch", category="latent/batch", title="Latent Batch")
def batch_latents(samples1: Latent, samples2: Latent) -> Latent:
    """Both in one batch; a second one of another size is resized to the first, whose noise mask is kept.

    Each gets the noise that it would get in its own batch, so the first of both get the same.
    """
    import torch

    from nodes.maths.resize import common_upscale

    refuse_unlike(samples1, samples2)
    first, second = samples1.samples, samples2.samples
    if second.shape[2:] != first.shape[2:]:
        second = common_upscale(second, first.shape[3], first.shape[2], "bilinear", "center")
    return Latent(torch.cat((first, second)), samples1.noise_mask, (*_places(samples1), *_places(samples2)))


@node("LatentBatchSeedBehavior", category="latent/advanced")
def choose_batch_noise(
    samples: Latent,
    seed_behavior: Annotated[
        Literal["random", "fixed"],
        Field(description="random: noise of its own for each; fixed: for all that of the first."),
    ] = "fixed",
) -> Latent:
    """Whether the latents of a batch get different noise or the same."""
    places = _places(samples)
    fixed = places[:1] * len(places) if seed_behavior == "fixed" else None
    return replace(samples, batch_index=fixed, unfinished=None)


@node("RebatchImages", category="image/batch", title="Rebatch Images")
def rebatch_images(images: Many[Image], batch_size: BatchSize = 1) -> Many[Image]:
    """All pictures in batches of another size, as a list; where the pictures' size changes, a new batch begins."""
    import torch

    pictures = [picture for image in images for picture in image.pixels.unbind()]
    return [Image(torch.stack(pictures[part])) for part in _parts(pictures, batch_size)]


@node("RebatchLatents", category="latent/batch", title="Rebatch Latents")
def rebatch_latents(latents: Many[Latent], batch_size: BatchSize = 1) -> Many[Latent]:
    """All latents in batches of another size, as a list; where the latents' size changes, a new batch begins."""
    singles = _singles(latents)
    return [_together(singles[part]) for part in _parts([single.samples for single in singles], batch_size)]


@node("ImageBatchToImageList", category="image/batch", title="Image Batch To Image List")
def image_batch_to_list(image: Image) -> Many[Image]:
    """Each picture of a batch as an item of its own."""
    return [Image(picture.unsqueeze(0).clone()) for picture in image.pixels.unbind()]


@node("ImageListToImageBatch", category="image/batch", title="Image List To Image Batch")
def image_list_to_batch(images: Many[Image]) -> Image:
    """All pictures of a list in one batch; those of another size are resized and cropped to that of the first."""
    import torch

    from nodes.maths.composite import with_same_channels
    from nodes.maths.resize import resize_picture

    if not images:
        raise ValueError("there are no pictures in the list, and a batch has at least one")
    height, width = images[0].pixels.shape[1:3]
    fitting = (
        pixels if pixels.shape[1:3] == (height, width) else resize_picture(pixels, width, height, "bilinear", "center")
        for pixels in with_same_channels([image.pixels for image in images])
    )
    return Image(torch.cat(list(fitting)))


def _places(latent: Latent) -> tuple[int, ...]:
    """Which picture of a larger batch each sample is; of this one, where none is known."""
    return latent.batch_index or tuple(range(latent.samples.shape[0]))


def _singles(latents: Iterable[Latent]) -> list[Latent]:
    """Every latent by itself, with the place it has in its batch; batches without one count on through the list."""
    singles: list[Latent] = []
    for latent in latents:
        count = latent.samples.shape[0]
        places = latent.batch_index or range(len(singles), len(singles) + count)
        masks = latent.noise_mask
        for at, place in zip(range(count), places, strict=True):
            mask = None if masks is None else masks[at % masks.shape[0]].unsqueeze(0).clone()
            singles.append(Latent(latent.samples[at : at + 1].clone(), mask, (place,)))
    return singles


def _together(singles: Sequence[Latent]) -> Latent:
    """Latents of one size as one batch. If only some have a mask, the others are to be changed everywhere."""
    import torch

    from nodes.maths.resize import resize_mask

    samples = torch.cat([single.samples for single in singles])
    places = tuple(place for single in singles for place in single.batch_index or ())
    sizes = [single.noise_mask.shape[-2:] for single in singles if single.noise_mask is not None]
    if not sizes:
        return Latent(samples, batch_index=places)
    height, width = max(sizes, key=lambda size: size[0] * size[1])
    everywhere = torch.ones(1, 1, height, width)
    masks = [everywhere if single.noise_mask is None else single.noise_mask for single in singles]
    fitting = [mask if mask.shape[-2:] == (height, width) else resize_mask(mask, width, height) for mask in masks]
    return Latent(samples, torch.cat(fitting), places)


def _parts(tensors: "Sequence[Tensor]", most: int) -> Iterator[slice]:
    """Where to cut, so that every part holds tensors of one shape, and not more than so many."""
    start = 0
    for at in range(1, len(tensors) + 1):
        if at == len(tensors) or at - start == most or tensors[at].shape != tensors[start].shape:
            yield slice(start, at)
            start = at
