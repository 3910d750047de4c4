"""Change a picture's size and place: scale, crop, turn, mirror, pad, and join two of them."""

from typing import Annotated, Literal

from pydantic import Field

from graph.literals import Widget
from graph.node import node
from nodes.images import UpscaleMethod
from nodes.lengths import LONGEST, Pixels, Side
from nodes.values import Image

# The names stand here as types, so that listing them needs no torch; a test holds them against the tables.
MaxDimensionMethod = Literal["area", "lanczos", "bilinear", "nearest-exact", "bicubic"]
PadMethod = Literal["area", "bicubic", "nearest-exact", "bilinear", "lanczos"]
Rotation = Literal["none", "90 degrees", "180 degrees", "270 degrees"]
FlipMethod = Annotated[
    Literal["x-axis: vertically", "y-axis: horizontally"], Field(description="The axis that stays where it is.")
]
Direction = Annotated[
    Literal["right", "down", "left", "up"], Field(description="On which side of the first the second goes.")
]
Colour = Literal["white", "black", "red", "green", "blue"]


@node("ImageScaleBy", category="image/upscaling", title="Upscale Image By")
def scale_image_by(
    image: Image,
    upscale_method: UpscaleMethod = "nearest-exact",
    scale_by: Annotated[float, Field(ge=0.01, le=8, description="2: twice as wide and as high."), Widget(step=0.01)] = (
        1.0
    ),
) -> Image:
    """Resize by a factor."""
    height, width = image.pixels.shape[1:3]
    return _resized(image, upscale_method, round(width * scale_by), round(height * scale_by))


@node("ImageScaleToTotalPixels", category="image/upscaling", title="Scale Image to Total Pixels")
def scale_to_total_pixels(
    image: Image,
    upscale_method: UpscaleMethod = "nearest-exact",
    megapixels: Annotated[
        float, Field(ge=0.01, le=16, description="1 is 1024 times 1024 pixels."), Widget(step=0.01)
    ] = 1.0,
) -> Image:
    """Resize to a number of pixels, keeping the proportions."""
    from nodes.maths.transforms import size_of_area

    height, width = image.pixels.shape[1:3]
    return _resized(image, upscale_method, *size_of_area(width, height, megapixels))


@node("ImageScaleToMaxDimension", category="image/upscaling", title="Scale Image to Max Dimension")
def scale_to_max_dimension(
    image: Image,
    upscale_method: MaxDimensionMethod = "area",
    largest_size: Annotated[
        int, Field(ge=0, le=LONGEST, description="Pixels of the longer side; 0 leaves it as it is."), Widget(step=1)
    ] = 512,
) -> Image:
    """Resize so that the longer side has a given length, keeping the proportions."""
    from nodes.maths.transforms import size_of_longest

    if not largest_size:
        return image
    height, width = image.pixels.shape[1:3]
    return _resized(image, upscale_method, *size_of_longest(width, height, largest_size))


@node("ImageCrop", category="image/transform", title="Image Crop")
def crop_image(image: Image, width: Side = 512, height: Side = 512, x: Pixels = 0, y: Pixels = 0) -> Image:
    """A part of the picture, its corner at x, y; what would lie outside is left out."""
    from nodes.maths.transforms import crop

    return Image(crop(image.pixels, x, y, width, height).clone())


@node("ResizeAndPadImage", category="image/transform", title="Resize And Pad Image")
def resize_and_pad_image(
    image: Image,
    target_width: Side = 512,
    target_height: Side = 512,
    padding_color: Literal["white", "black"] = "white",
    interpolation: PadMethod = "area",
) -> Image:
    """As large as fits into a size, in the middle of it, on white or black."""
    from nodes.maths.transforms import resize_and_pad

    value = 1.0 if padding_color == "white" else 0.0
    return Image(resize_and_pad(image.pixels, target_width, target_height, value, interpolation))


@node("ImageStitch", category="image/transform", title="Image Stitch")
def stitch_images(
    image1: Image,
    direction: Direction = "right",
    match_image_size: Annotated[
        bool, Field(description="Resize the second to the first's height or width; otherwise centre the smaller one.")
    ] = True,
    spacing_width: Annotated[
        int, Field(ge=0, le=1024, description="Pixels between the two; an odd number becomes one more."), Widget(step=2)
    ] = 0,
    spacing_color: Colour = "white",
    image2: Image | None = None,
) -> Image:
    """Two pictures side by side, or one above the other; the shorter batch goes on with its last picture."""
    from nodes.maths.transforms import stitch

    if image2 is None:
        return image1
    return Image(stitch(image1.pixels, image2.pixels, direction, match_image_size, spacing_width, spacing_color))


@node("ImageRotate", category="image/transform", title="Image Rotate")
def rotate_image(image: Image, rotation: Rotation = "none") -> Image:
    """Turn the picture clockwise."""
    from nodes.maths.transforms import rotate_picture

    return Image(rotate_picture(image.pixels, rotation).contiguous())


@node("ImageFlip", category="image/transform", title="Image Flip")
def flip_image(image: Image, flip_method: FlipMethod = "x-axis: vertically") -> Image:
    """Mirror the picture."""
    from nodes.maths.transforms import flip_picture

    return Image(flip_picture(image.pixels, flip_method))


def _resized(image: Image, method: UpscaleMethod, width: int, height: int) -> Image:
    from nodes.maths.resize import resize_picture

    return Image(resize_picture(image.pixels, max(1, width), max(1, height), method))
