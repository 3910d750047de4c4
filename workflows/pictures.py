"""The texts that a picture carries in its file: in a PNG's text chunks, or in the EXIF data of a WebP or JPEG."""

import io
import struct
import warnings
from collections.abc import Iterator

from nodes.picture_files import DAMAGE, LONGEST_TEXT, PNG_SIGNATURE, png_texts

JPEG_SIGNATURE = b"\xff\xd8\xff"
TEXTS = ("prompt", "workflow")


class UnreadablePicture(ValueError):
    """A picture's file is damaged, so that its texts cannot be read."""


def is_picture(content: bytes) -> bool:
    """Whether these bytes begin as a picture's file does, of a kind that may carry a workflow."""
    return content.startswith((PNG_SIGNATURE, JPEG_SIGNATURE)) or (content[:4] == b"RIFF" and content[8:12] == b"WEBP")


def picture_texts(content: bytes) -> dict[str, str]:
    """The texts by name, such as `prompt` and `workflow`, without decoding the picture. Raises UnreadablePicture."""
    if content.startswith(PNG_SIGNATURE):
        return {**dict(_animation_texts(content)), **png_texts(content)}
    return dict(_exif_texts(content))


def _animation_texts(content: bytes) -> Iterator[tuple[str, str]]:
    """Animated PNG files carry `name\\0text` in chunks of their own kind (`comf`), after the first frame."""
    at = len(PNG_SIGNATURE)
    while len(header := content[at : at + 8]) == 8:
        length, kind = struct.unpack(">I4s", header)
        if kind == b"comf" and length <= min(LONGEST_TEXT, len(content) - at - 8):
            name, _, text = content[at + 8 : at + 8 + length].decode("latin-1").partition("\0")
            yield name, text
        at += length + 12


def _exif_texts(content: bytes) -> Iterator[tuple[str, str]]:
    """EXIF has no room for names, so each text begins with its own: `workflow:{…}`, in whatever field."""
    from PIL import Image, UnidentifiedImageError

    try:
        # What pillow warns of (size, odd tags) is of no consequence for the texts.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content)) as image:
                values: list[object] = list(image.getexif().values())
    except (UnidentifiedImageError, Image.DecompressionBombError, *DAMAGE) as error:
        raise UnreadablePicture(f"this picture is damaged or cut short ({error})") from error
    for value in values:
        text = _utf8(value)
        name, colon, rest = text.partition(":")
        if colon and name in TEXTS:
            yield name, rest


def _utf8(value: object) -> str:
    """EXIF's texts are ASCII by its letter, and pillow reads them as Latin-1, but what is in them is JSON in UTF-8."""
    try:
        raw = value.encode("latin-1") if isinstance(value, str) else value if isinstance(value, bytes) else b""
        return raw.decode("utf-8")
    except UnicodeError:
        return value if isinstance(value, str) else ""
