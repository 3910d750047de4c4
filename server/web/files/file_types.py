"""As what a file is sent. A browser is never handed something of a user's that it would run."""

from pathlib import PurePath

UNKNOWN = "application/octet-stream"

# What browsers show or play, and what cannot act in them. HTML, SVG, XML, PDF, scripts and style sheets are missing
# on purpose: they are downloaded.
TYPES = {
    ".png": "image/png",
    ".apng": "image/apng",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".jfif": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".bmp": "image/bmp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".avif": "image/avif",
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".mov": "video/quicktime",
    ".mp3": "audio/mpeg",
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".wav": "audio/wav",
    ".m4a": "audio/mp4",
    ".glb": "model/gltf-binary",
    ".txt": "text/plain",
    ".log": "text/plain",
    ".csv": "text/csv",
    ".json": "application/json",
}


def type_of(name: str) -> str:
    """The media type to send a file of this name as."""
    return TYPES.get(PurePath(name).suffix.lower(), UNKNOWN)
