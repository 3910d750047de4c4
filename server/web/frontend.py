"""A graph editor that is installed beside this server as a package of its own; nothing of it is in this project."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from aiohttp import web

from server.web.answers import FileAnswer
from server.web.files.names import found, is_file
from server.web.problems import Refused

PACKAGE = "comfyui_frontend_package"
INDEX = "index.html"

# What an editor is made of. Not from the system's table, which may call scripts something that browsers refuse.
TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".css": "text/css",
    ".json": "application/json",
    ".map": "application/json",
    ".txt": "text/plain",
    ".wasm": "application/wasm",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".ico": "image/x-icon",
    ".webm": "video/webm",
    ".mp4": "video/mp4",
    ".mp3": "audio/mpeg",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".ttf": "font/ttf",
    ".eot": "application/vnd.ms-fontobject",
}


NOT_INSTALLED = 'the editor is not installed: pip install "latentloom[comfyui]", or serve without --frontend comfyui'


class NoFrontend(ValueError):
    """The editor that is to be served is not there."""


@dataclass(frozen=True, slots=True)
class Frontend:
    """The folder that an editor's files are in."""

    folder: Path

    @staticmethod
    def installed() -> "Frontend":
        """The editor of the published package. Looks at the disk. Raises NoFrontend."""
        spec = find_spec(PACKAGE)
        places = (spec.submodule_search_locations or ()) if spec else ()
        if not places:
            raise NoFrontend(NOT_INSTALLED)
        return Frontend.built(Path(places[0], "static"))

    @staticmethod
    def built(folder: Path) -> "Frontend":
        """The editor that somebody has built into a folder. Looks at the disk. Raises NoFrontend."""
        if not is_file(folder / INDEX):
            raise NoFrontend(f"there is no editor in {folder}: it holds no {INDEX}")
        return Frontend(folder)

    def file(self, name: str) -> web.StreamResponse:
        """One of its files. Looks at the disk. Refuses what is not there."""
        path = found((self.folder,), name)
        if path is None:
            raise Refused(404, f"there is nothing at /{name}")
        media_type = TYPES.get(path.suffix.lower(), "application/octet-stream")
        charset = "; charset=utf-8" if media_type.startswith("text/") else ""
        return FileAnswer(path, headers={"Content-Type": media_type + charset})
