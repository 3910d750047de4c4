"""Read pictures and masks from files, and write PNG files that carry their workflow."""

import io
import struct
import warnings
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple

from nodes.file_errors import PictureError

if TYPE_CHECKING:
    # Command lines that only look at a PNG's text must not wait for these.
    import numpy as np
    from jaxtyping import Float, UInt8
    from PIL import Image
    from torch import Tensor

Channel = Literal["alpha", "red", "green", "blue"]

LONGEST_SIDE = 16384
MOST_PIXELS = LONGEST_SIDE**2
LONGEST_TEXT = 64 * 1024 * 1024
# The many ways in which pillow's decoders report a damaged file.
DAMAGE = (OSError, SyntaxError, ValueError, TypeError, ArithmeticError, LookupError, EOFError, struct.error, zlib.error)
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Picture(NamedTuple):
    """The frames of a file in 0..1, and where they are transparent (1); 64x64 of zeros if they never are."""

    pixels: "Float[Tensor, 'frames height width 3']"
    mask: "Float[Tensor, 'frames height2 width2']"


def decode_picture(path: Path) -> Picture:
    """The picture in a file, upright; of several frames those of the first one's size. Raises PictureError."""
    with _opened(path) as image:
        frames = list(_frames(path, image))
    return _as_batch(frames)


def decode_mask(path: Path, channel: Channel) -> "Float[Tensor, '1 height width']":
    """One channel of a file as a mask; alpha is turned round, so that transparent is 1. Raises PictureError."""
    from PIL import ImageOps

    with _opened(path) as image:
        upright = _eight_bit(ImageOps.exif_transpose(image)).convert("RGBA")
    mask = _plane(upright, channel[0].upper()).unsqueeze(0)
    return 1.0 - mask if channel == "alpha" else mask


@contextmanager
def _opened(path: Path) -> "Generator[Image.Image, None, None]":
    """An image file whose size has been judged; whatever pillow finds wrong with it becomes a PictureError."""
    from PIL import Image, UnidentifiedImageError

    try:
        if path.stat().st_size == 0:
            raise PictureError(path, "the file is empty (0 bytes). Copy or export it again.")
        # What pillow warns of (size, odd tags) is either read all the same or refused below, in a sentence.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                _refuse_oversized(path, image)
                yield image
    except PictureError:
        raise
    except FileNotFoundError as error:
        raise PictureError(path, "there is no such file. Check the name, or put it into the input folder.") from error
    except IsADirectoryError as error:
        raise PictureError(path, "it is a folder. Choose a picture in it.") from error
    except PermissionError as error:
        raise PictureError(path, "it may not be read. Change its permissions.") from error
    except UnidentifiedImageError as error:
        raise PictureError(path, "it is not a picture. PNG, JPEG, WebP, GIF, BMP and TIFF can be read.") from error
    except Image.DecompressionBombError as error:
        raise PictureError(path, f"it is too large ({error}). Make it smaller first.") from error
    except DAMAGE as error:
        raise PictureError(path, f"it is damaged or cut short ({error}). Copy or export it again.") from error


def _refuse_oversized(path: Path, image: "Image.Image") -> None:
    width, height = image.size
    frames = getattr(image, "n_frames", 1)
    if max(width, height) > LONGEST_SIDE:
        raise PictureError(
            path, f"it measures {width}x{height}, more than {LONGEST_SIDE} on a side. Make it smaller first."
        )
    if width * height * frames > MOST_PIXELS:
        raise PictureError(path, f"its {frames} frames of {width}x{height} are too much. Use fewer or smaller ones.")


def _frames(path: Path, image: "Image.Image") -> "Iterator[Image.Image]":
    """The frames to use: upright, in 8 bits, all of one size."""
    from PIL import ImageOps, ImageSequence

    size = None
    for frame in ImageSequence.Iterator(image):
        upright = _eight_bit(ImageOps.exif_transpose(frame))
        size = size or upright.size
        if upright.size == size:
            # The iterator hands out the same image again and again: keep a decoded copy.
            yield upright.convert("RGBA" if _has_alpha(upright) else "RGB")
        # Further pictures in an MPO are views for a stereo display, not frames.
        if image.format == "MPO":
            return


def _eight_bit(image: "Image.Image") -> "Image.Image":
    """16-bit greys scaled by 1/255 (pillow would clip them at 255)."""
    if image.mode.startswith("I;16"):
        image = image.convert("I")
    return image.point(lambda value: value * (1 / 255)) if image.mode == "I" else image


def _has_alpha(image: "Image.Image") -> bool:
    return "A" in image.getbands() or (image.mode == "P" and "transparency" in image.info)


def _as_batch(frames: "list[Image.Image]") -> Picture:
    import torch

    pixels = torch.stack([_pixels(frame) for frame in frames])
    if not any(frame.mode == "RGBA" for frame in frames):
        return Picture(pixels, torch.zeros(len(frames), 64, 64))
    opaque = torch.ones(pixels.shape[1:3])
    alphas = [_plane(frame, "A") if frame.mode == "RGBA" else opaque for frame in frames]
    return Picture(pixels, 1.0 - torch.stack(alphas))


def _pixels(image: "Image.Image") -> "Float[Tensor, 'height width 3']":
    import numpy as np
    import torch

    return torch.as_tensor(np.array(image.convert("RGB"), dtype=np.float32) / 255.0)


def _plane(image: "Image.Image", channel: str) -> "Float[Tensor, 'height width']":
    import numpy as np
    import torch

    return torch.as_tensor(np.array(image.getchannel(channel), dtype=np.float32) / 255.0)


def to_uint8(pixels: "Float[Tensor, '*shape']") -> "UInt8[np.ndarray, '*shape']":
    """0..1 as 8 bits: clipped, then truncated, so 0.5 is 127. Not-a-numbers become black."""
    import torch

    return (255.0 * pixels.detach().float().cpu()).nan_to_num(0.0).clamp(0, 255).to(torch.uint8).numpy()


def encode_png(
    pixels: "UInt8[np.ndarray, 'height width channels']", text: dict[str, str], compress_level: int = 4
) -> bytes:
    """A PNG file with these texts in it (tEXt, or iTXt where Latin-1 does not do)."""
    from PIL import Image, PngImagePlugin

    chunks = PngImagePlugin.PngInfo()
    for key, value in text.items():
        chunks.add_text(key, value)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", pnginfo=chunks, compress_level=compress_level)
    return file.getvalue()


def png_texts(content: bytes) -> dict[str, str]:
    """The texts in a PNG file, such as `prompt` and `workflow`, without decoding the picture; none if it is no PNG."""
    if not content.startswith(PNG_SIGNATURE):
        return {}
    file = io.BytesIO(content)
    file.seek(len(PNG_SIGNATURE))
    return dict(text for kind, data in _text_chunks(file) if (text := _text(kind, data)))


def _text_chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """The text chunks up to the end of the picture; a file that ends early has just those that are complete."""
    while len(header := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", header)
        if kind == b"IEND":
            return
        if kind not in (b"tEXt", b"zTXt", b"iTXt"):
            file.seek(length + 4, io.SEEK_CUR)
            continue
        data = file.read(min(length, LONGEST_TEXT))
        if len(data) < length:
            return
        yield kind, data
        file.seek(4, io.SEEK_CUR)


def _text(kind: bytes, data: bytes) -> tuple[str, str] | None:
    """Keyword and text of a chunk, or None where it does not keep to the format."""
    key, _, rest = data.partition(b"\0")
    try:
        match kind:
            case b"tEXt":
                return key.decode("latin-1"), rest.decode("latin-1")
            case b"zTXt":
                return key.decode("latin-1"), _inflate(rest[1:]).decode("latin-1")
            case _:
                compressed, (_language, _, rest) = rest[:1] == b"\x01", rest[2:].partition(b"\0")
                _translated, _, value = rest.partition(b"\0")
                return key.decode("latin-1"), (_inflate(value) if compressed else value).decode("utf-8")
    except (zlib.error, UnicodeDecodeError):
        return None


def _inflate(data: bytes) -> bytes:
    """Unpacked, up to a bound: a few bytes may claim to be gigabytes."""
    return zlib.decompressobj().decompress(data, LONGEST_TEXT)
