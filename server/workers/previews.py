"""Pictures of work in progress as bytes. Importing this module imports no pillow."""

import sys
from io import BytesIO
from typing import Protocol, runtime_checkable

from graph.previews import Delivery
from server.workers.messages import MediaType, Picture
from server.workers.options import PictureFormat, PreviewOptions

_TYPES: dict[PictureFormat, MediaType] = {"jpeg": "image/jpeg", "png": "image/png"}
_MARKS: dict[bytes, MediaType] = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}


@runtime_checkable
class Encodable(Protocol):
    """What can say itself as a picture file, as `nodes.previews.LatentPreview` does."""

    def jpeg(self, side: int) -> bytes: ...

    def png(self, side: int) -> bytes: ...


def encoded(preview: object, options: PreviewOptions) -> Picture | None:
    """What a node gave as a preview, as a file; None if it is nothing that can be shown.

    It may be anything with methods `jpeg` and `png`, a pillow image, or the bytes of a JPEG or PNG file, also in a
    `Delivery`.
    """
    if isinstance(preview, bytes | Delivery):
        data, result = (preview.data, True) if isinstance(preview, Delivery) else (preview, False)
        for mark, media_type in _MARKS.items():
            if data.startswith(mark):
                return Picture(media_type=media_type, data=data, result=result)
        return None
    if isinstance(preview, Encodable):
        draw = preview.jpeg if options.format == "jpeg" else preview.png
        return Picture(media_type=_TYPES[options.format], data=draw(options.side))
    return _of_image(preview, options) if "PIL.Image" in sys.modules else None


def _of_image(preview: object, options: PreviewOptions) -> Picture | None:
    from PIL.Image import Image, Resampling

    if not isinstance(preview, Image):
        return None
    picture = preview.convert("RGB")
    picture.thumbnail((options.side, options.side), Resampling.BILINEAR)
    file = BytesIO()
    picture.save(file, options.format)
    return Picture(media_type=_TYPES[options.format], data=file.getvalue())
