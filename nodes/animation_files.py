"""Write animated pictures: WebP, PNG and GIF, each with its workflow in it."""

import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from nodes.picture_files import to_uint8

if TYPE_CHECKING:
    from jaxtyping import Float
    from PIL import Image
    from torch import Tensor

Method = Literal["default", "fastest", "slowest"]

METHODS: dict[Method, int] = {"default": 4, "fastest": 0, "slowest": 6}
"""WebP's effort."""

MODEL_TAG, MAKE_TAG = 0x0110, 0x010F
"""Where ComfyUI keeps the prompt in a WebP file's EXIF data; further documents count down from the second."""


def encode_webp(
    frames: "Float[Tensor, 'frames height width channels']",
    texts: dict[str, str],
    fps: float,
    lossless: bool,
    quality: int,
    method: Method,
) -> bytes:
    """An animated WebP file, the texts in its EXIF data as `name:text`."""
    from PIL import Image

    exif = Image.Exif()
    prompt = texts.get("prompt")
    if prompt is not None:
        exif[MODEL_TAG] = f"prompt:{prompt}"
    for index, (name, text) in enumerate((name, text) for name, text in texts.items() if name != "prompt"):
        exif[MAKE_TAG - index] = f"{name}:{text}"
    return _encoded(frames, "WEBP", fps, exif=exif, lossless=lossless, quality=quality, method=METHODS[method])


def encode_apng(
    frames: "Float[Tensor, 'frames height width channels']", texts: dict[str, str], fps: float, compress_level: int
) -> bytes:
    """An animated PNG file with these texts in it."""
    from PIL import PngImagePlugin

    chunks = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        chunks.add_text(name, text)
    return _encoded(frames, "PNG", fps, pnginfo=chunks, compress_level=compress_level)


def encode_gif(
    frames: "Float[Tensor, 'frames height width channels']", texts: dict[str, str], fps: float, loop: bool
) -> bytes:
    """An animated GIF file, the texts in its comment as JSON. GIF counts hundredths of a second."""
    comment = json.dumps(texts).encode("ascii") if texts else b""
    return _encoded(frames, "GIF", fps, comment=comment, **({"loop": 0} if loop else {}))


def _encoded(
    frames: "Float[Tensor, 'frames height width channels']", kind: str, fps: float, **options: object
) -> bytes:
    first, *others = _images(frames)
    file = io.BytesIO()
    first.save(file, kind, save_all=True, append_images=others, duration=int(1000 / fps), **options)
    return file.getvalue()


def _images(frames: "Float[Tensor, 'frames height width channels']") -> "Sequence[Image.Image]":
    from PIL import Image

    return [Image.fromarray(pixels) for pixels in to_uint8(frames)]
