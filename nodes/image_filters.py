"""Filters of pictures: noise, blend modes, blur, sharpen, quantisation, morphology, edges, brightness and colour."""

from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from graph.literals import Widget
from graph.node import node
from nodes.values import Image

# The names stand here as types, so that listing them needs no torch; a test holds them against the tables.
BlendMode = Literal["normal", "multiply", "screen", "overlay", "soft_light", "difference"]
Dither = Literal["none", "floyd-steinberg", "bayer-2", "bayer-4", "bayer-8", "bayer-16"]
Operation = Literal["erode", "dilate", "open", "close", "gradient", "bottom_hat", "top_hat"]
Radius = Annotated[int, Field(ge=1, le=31, description="Pixels on each side."), Widget(step=1)]
InRadii = "The deviation of the bell, where 1 is the radius."


@node("ImageAddNoise", category="image", title="Add Noise to Image")
def add_noise_to_image(
    image: Image,
    seed: Annotated[int, Field(ge=0, lt=2**64), Widget(control_after_generate=True)] = 0,
    strength: Annotated[float, Field(ge=0, le=1, description="The noise's standard deviation."), Widget(step=0.01)] = (
        0.5
    ),
) -> Image:
    """Gaussian noise on top of the picture; the same seed gives the same noise."""
    from nodes.maths.filters import add_noise

    return Image(add_noise(image.pixels, seed, strength))


@node("ImageBlend", category="image/postprocessing", title="Image Blend")
def blend_images(
    image1: Image,
    image2: Image,
    blend_factor: Annotated[
        float,
        Field(ge=0, le=1, description="0: the first as it is, 1: what the mode makes of both."),
        Widget(step=0.01),
    ] = 0.5,
    blend_mode: BlendMode = "normal",
) -> Image:
    """Mix two pictures by a blend mode; a second one of another size is resized to the first."""
    from nodes.maths.blending import blend

    return Image(blend(image1.pixels, image2.pixels, blend_factor, blend_mode))


@node("ImageBlur", category="image/postprocessing", title="Image Blur")
def blur_image(
    image: Image,
    blur_radius: Radius = 1,
    sigma: Annotated[float, Field(ge=0.1, le=10, description=InRadii), Widget(step=0.1)] = 1.0,
) -> Image:
    """Blur the picture with a Gaussian."""
    from nodes.maths.filters import blur

    return Image(blur(image.pixels, blur_radius, sigma).contiguous())


@node("ImageSharpen", category="image/postprocessing", title="Image Sharpen")
def sharpen_image(
    image: Image,
    sharpen_radius: Radius = 1,
    sigma: Annotated[float, Field(ge=0.1, le=10, description=InRadii), Widget(step=0.01)] = 1.0,
    alpha: Annotated[
        float, Field(ge=0, le=5, description="A tenth of the strength; 0 changes nothing."), Widget(step=0.01)
    ] = 1.0,
) -> Image:
    """Add again, and stronger, what a blur would take away."""
    from nodes.maths.filters import sharpen

    return Image(sharpen(image.pixels, sharpen_radius, sigma, alpha).contiguous())


@node("ImageQuantize", category="image/postprocessing", title="Image Quantize")
def quantize_image(
    image: Image,
    colors: Annotated[int, Field(ge=1, le=256, description="How many at most."), Widget(step=1)] = 256,
    dither: Dither = "none",
) -> Image:
    """Few colours, chosen for each picture; dithering hides the steps between them."""
    from nodes.maths.filters import quantize

    return Image(quantize(image.pixels, colors, dither))


@node("Morphology", category="image/postprocessing", title="Image Morphology")
def change_shapes(
    image: Image,
    operation: Operation = "erode",
    kernel_size: Annotated[int, Field(ge=3, le=999, description="Pixels of the square's side."), Widget(step=1)] = 3,
) -> Image:
    """Erode or dilate what is light, remove or find what is smaller than a square, or find outlines."""
    from nodes.maths.filters import morphology

    return Image(morphology(image.pixels, operation, kernel_size))


@node("Canny", category="image/preprocessors", title="Canny")
def find_edges(
    image: Image,
    low_threshold: Annotated[
        float,
        Field(ge=0.01, le=0.99, description="How steep what goes on with an edge is at least."),
        Widget(step=0.01),
    ] = 0.4,
    high_threshold: Annotated[
        float, Field(ge=0.01, le=0.99, description="How steep an edge is somewhere."), Widget(step=0.01)
    ] = 0.8,
) -> Image:
    """The edges of the picture in white on black, as a ControlNet for edges takes them."""
    from nodes.maths.edges import canny

    if low_threshold > high_threshold:
        raise ValueError(
            f"low_threshold is {low_threshold} and high_threshold {high_threshold}, but the lower one cannot be above "
            "the other; exchange them"
        )
    edges = canny(image.pixels, low_threshold, high_threshold)
    return Image(edges.movedim(1, -1).repeat(1, 1, 1, 3))


class Yuv(NamedTuple):
    """Grey pictures: brightness, and how blue and how red the picture is, a half being neither."""

    Y: Image
    U: Image
    V: Image


@node("ImageRGBToYUV", category="image/batch")
def split_brightness(image: Image) -> Yuv:
    """Brightness and colour apart, so that they can be changed apart."""
    from nodes.maths.colour import to_yuv

    return Yuv(*(Image(plane.repeat(1, 1, 1, 3)) for plane in to_yuv(image.rgb)))


@node("ImageYUVToRGB", category="image/batch")
def join_brightness(Y: Image, U: Image, V: Image) -> Image:
    """A picture of its brightness and its colour, as ImageRGBToYUV took it apart."""
    from nodes.maths.colour import from_yuv

    y, u, v = (part.rgb.mean(dim=-1, keepdim=True) for part in (Y, U, V))
    return Image(from_yuv(y, u, v).clamp(0.0, 1.0))
