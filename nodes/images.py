"""Pictures: make, measure, resize, invert, batch, extend, lay over one another, and lay out on a sheet."""

from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from graph.literals import Widget
from graph.node import node
from nodes.lengths import Crop, Pixels, PixelsByEight, Side
from nodes.values import Image, Mask

# The names stand here as types, so that listing them needs no torch; a test holds them against the tables.
UpscaleMethod = Literal["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]


class ImageSize(NamedTuple):
    """Pixels of a picture's sides, and how many pictures there are."""

    width: int
    height: int
    batch_size: int


@node("EmptyImage", category="image")
def empty_image(
    width: Side = 512,
    height: Side = 512,
    batch_size: Annotated[int, Field(ge=1, le=4096, description="How many pictures.")] = 1,
    color: Annotated[
        int, Field(ge=0, le=0xFFFFFF, description="Red, green and blue as 0xRRGGBB."), Widget(step=1, display="color")
    ] = 0,
) -> Image:
    """Pictures of one colour."""
    from nodes.maths.transforms import one_colour

    return Image(one_colour(width, height, batch_size, color))


@node("GetImageSize", category="image", title="Get Image Size", cutoff=True)
def image_size(image: Image) -> ImageSize:
    """How large a picture is, and how many are in the batch."""
    batch, height, width = image.pixels.shape[:3]
    return ImageSize(width, height, batch)


@node("ImageScale", category="image/upscaling", title="Upscale Image")
def scale_image(
    image: Image,
    upscale_method: UpscaleMethod = "nearest-exact",
    width: Pixels = 512,
    height: Pixels = 512,
    crop: Crop = "disabled",
) -> Image:
    """Resize to a width and height; a side of 0 follows the proportions."""
    from nodes.maths.resize import fill_in_size, resize_picture

    if not width and not height:
        return image
    width, height = fill_in_size(width, height, image.pixels.shape[2], image.pixels.shape[1])
    return Image(resize_picture(image.pixels, width, height, upscale_method, crop))


@node("ImageInvert", category="image", title="Invert Image")
def invert_image(image: Image) -> Image:
    """Light becomes dark, and every colour its complement."""
    return Image(1.0 - image.pixels)


@node("ImageBatch", category="image", title="Batch Images")
def batch_images(image1: Image, image2: Image) -> Image:
    """Both in one batch; pictures of another size are resized and cropped to that of the first."""
    from nodes.maths.composite import batch_pictures

    return Image(batch_pictures(image1.pixels, image2.pixels))


class Outpainting(NamedTuple):
    """The larger canvas, and the area to paint."""

    IMAGE: Image
    MASK: Mask


@node("ImagePadForOutpaint", category="image", title="Pad Image for Outpainting")
def pad_for_outpainting(
    image: Image,
    left: PixelsByEight = 0,
    top: PixelsByEight = 0,
    right: PixelsByEight = 0,
    bottom: PixelsByEight = 0,
    feathering: Annotated[Pixels, Field(description="How far the area to paint fades into the picture.")] = 40,
) -> Outpainting:
    """A larger grey canvas around the picture, with a mask of what is to be painted."""
    from nodes.maths import masks

    canvas = masks.pad_for_outpainting(image.pixels, left, top, right, bottom, feathering)
    return Outpainting(Image(canvas.pixels), Mask(canvas.mask))


@node("ImageCompositeMasked", category="image")
def composite_images(
    destination: Image,
    source: Image,
    x: Pixels = 0,
    y: Pixels = 0,
    resize_source: Annotated[bool, Field(description="Stretch the source to the destination's size first.")] = False,
    mask: Mask | None = None,
) -> Image:
    """Lay one picture over another, its corner at x, y; with a mask (of any size), where the mask is 1."""
    from nodes.maths.composite import paste_picture

    values = None if mask is None else mask.values
    return Image(paste_picture(destination.pixels, source.pixels, x, y, values, resize_source))


@node("ImageMaskBlend", category="image")
def blend_images_by_mask(image1: Image, image2: Image, mask: Mask) -> Image:
    """The first picture where the mask is 0, the second where it is 1, a mixture between; sizes follow the first."""
    from nodes.maths.composite import blend_pictures_by_mask

    return Image(blend_pictures_by_mask(image1.pixels, image2.pixels, mask.values))


@node("ContactSheet", category="image", title="Contact Sheet")
def contact_sheet(
    images: Image,
    captions: Annotated[str, Field(description="One line for each picture, in order."), Widget(multiline=True)] = "",
    columns: Annotated[int, Field(ge=0, le=100, description="0: as square as it gets.")] = 0,
    padding: Annotated[int, Field(ge=0, le=512, description="Pixels around every picture.")] = 12,
    background: Annotated[str, Field(description="A colour's name or #rrggbb; the text is dark or light on it.")] = (
        "#ffffff"
    ),
    text_size: Annotated[int, Field(ge=0, le=200, description="Pixels; 0 follows the pictures' size.")] = 0,
) -> Image:
    """All pictures of a batch on one sheet, each above its caption."""
    from nodes.maths import sheets

    lines = captions.splitlines()
    return Image(sheets.contact_sheet(images.rgb.unbind(), lines, columns, padding, background, text_size))
