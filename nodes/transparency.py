"""Pictures with transparency: take the alpha channel off, put one on, and lay such pictures over one another."""

from typing import Literal, NamedTuple

from graph.node import node
from nodes.values import Image, Mask

# The names stand here as types, so that listing them needs no torch; a test holds them against the tables.
Mode = Literal[
    "ADD", "CLEAR", "DARKEN", "DST", "DST_ATOP", "DST_IN", "DST_OUT", "DST_OVER", "LIGHTEN", "MULTIPLY", "OVERLAY",
    "SCREEN", "SRC", "SRC_ATOP", "SRC_IN", "SRC_OUT", "SRC_OVER", "XOR",
]  # fmt: skip


class Transparent(NamedTuple):
    """A picture, and where it is transparent."""

    IMAGE: Image
    MASK: Mask


@node("SplitImageWithAlpha", category="mask/compositing", title="Split Image with Alpha")
def split_image_with_alpha(image: Image) -> Transparent:
    """The colours of a picture, and where it is transparent as a mask."""
    from nodes.maths.blending import split_alpha

    pixels, mask = split_alpha(image.pixels)
    return Transparent(Image(pixels.clone()), Mask(mask))


@node("JoinImageWithAlpha", category="mask/compositing", title="Join Image with Alpha")
def join_image_with_alpha(image: Image, alpha: Mask) -> Image:
    """Make a picture transparent where the mask is 1; the mask may be of any size."""
    from nodes.maths.blending import join_alpha

    return Image(join_alpha(image.pixels, alpha.values))


@node("PorterDuffImageComposite", category="mask/compositing", title="Porter-Duff Image Composite")
def composite_porter_duff(
    source: Image, source_alpha: Mask, destination: Image, destination_alpha: Mask, mode: Mode = "DST"
) -> Transparent:
    """Lay one picture over another by a mode of Porter and Duff; the masks are 1 where a picture is transparent."""
    from nodes.maths.blending import porter_duff

    pixels, mask = porter_duff(source.pixels, source_alpha.values, destination.pixels, destination_alpha.values, mode)
    return Transparent(Image(pixels), Mask(mask))
