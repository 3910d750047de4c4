"""Pictures made over for whoever looks at them. Everything here takes long, and belongs on a thread."""

import io
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nodes.picture_files import DAMAGE
from server.web.problems import Refused

if TYPE_CHECKING:
    from PIL import Image

Format = Literal["webp", "jpeg", "png"]
# Those that pillow decodes by itself, without handing the file to another program. MPO is opened as JPEG.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif", ".bmp")
TEXT_CHUNKS = 16


@contextmanager
def opened(source: Path | bytes, most_pixels: int) -> "Generator[Image.Image]":
    """A picture, not decoded yet. Refuses what is none, and what would be too large."""
    from PIL import Image, UnidentifiedImageError

    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(file, formats=FORMATS) as image:
            width, height = image.size
            if width * height > most_pixels:
                raise Refused(413, f"a picture of {width}x{height} is too large; {most_pixels:,} pixels are the most")
            yield image
    except UnidentifiedImageError as error:
        raise Refused(415, "this is no picture of a kind that is known here") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Refused(413, f"this picture is too large; {most_pixels:,} pixels are the most") from error
    except FileNotFoundError:
        raise
    # A program that turns warnings into errors, as our tests do, gets pillow's remarks about odd files that way.
    except (*DAMAGE, Warning) as error:
        raise Refused(415, "this picture is damaged") from error


def preview(source: Path | bytes, form: Format, quality: int, most_pixels: int) -> bytes:
    """The first frame in another format. Where that knows no transparency, there is none."""
    with opened(source, most_pixels) as image:
        plain = _eight_bit(image)
        plain = plain.convert("RGB" if form == "jpeg" or not plain.has_transparency_data else "RGBA")
        return _encoded(plain, form, quality=quality)


def without_alpha(source: Path, most_pixels: int) -> bytes:
    """The colours alone, as PNG."""
    with opened(source, most_pixels) as image:
        return _encoded(_eight_bit(image).convert("RGBA").convert("RGB"), "png", compress_level=1)


def alpha_alone(source: Path, most_pixels: int) -> bytes:
    """A black PNG with the picture's transparency."""
    from PIL import Image

    with opened(source, most_pixels) as image:
        alpha = _eight_bit(image).convert("RGBA").getchannel("A")
        black = Image.new("RGBA", alpha.size, (0, 0, 0, 255))
        black.putalpha(alpha)
        return _encoded(black, "png", compress_level=1)


def with_alpha_of(mask: Path, original: Path, most_pixels: int) -> bytes:
    """The original with the transparency of another picture of its size, as PNG; the original's texts stay in it."""
    from PIL import ImageOps, PngImagePlugin

    with opened(original, most_pixels) as image, opened(mask, most_pixels) as drawn:
        texts = PngImagePlugin.PngInfo()
        for name, text in _texts(image):
            texts.add_text(name, text)
        # Upright, as it was shown to whoever drew the mask.
        upright = ImageOps.exif_transpose(_eight_bit(image)).convert("RGBA")
        alpha = _eight_bit(drawn).convert("RGBA").getchannel("A")
        if alpha.size != upright.size:
            sizes = [f"{width}x{height}" for width, height in (alpha.size, upright.size)]
            raise Refused(400, f"the mask measures {sizes[0]}, and the picture {sizes[1]}; they have to be of one size")
        upright.putalpha(alpha)
        upright.info.clear()
        file = io.BytesIO()
        upright.save(file, "PNG", pnginfo=texts, compress_level=4)
        return file.getvalue()


def _texts(image: "Image.Image") -> Iterable[tuple[str, str]]:
    texts: dict[str, str] = getattr(image, "text", {})
    return list(texts.items())[:TEXT_CHUNKS]


def _encoded(image: "Image.Image", form: Format, **options: int) -> bytes:
    # What the file knows beside its pixels (place, camera, workflow) is not for a preview.
    image.info.clear()
    file = io.BytesIO()
    image.save(file, form.upper(), **options)
    return file.getvalue()


def _eight_bit(image: "Image.Image") -> "Image.Image":
    """16-bit greys scaled to 8 (pillow would clip them)."""
    if image.mode.startswith("I;16"):
        image = image.convert("I")
    return image.point(lambda value: value * (1 / 257)).convert("L") if image.mode == "I" else image
