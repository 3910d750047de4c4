"""A site on loopback, and a client that talks to it."""

import asyncio
import io
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from server.web.access import Door
from server.web.application import make_application
from server.web.files.owner_folders import OwnerFolders, installation_folders
from server.web.keys import StatedKey, StatedKeys
from server.web.rates import Rate
from server.web.site import Site

Client = TestClient[web.Request, web.Application]
Colour = tuple[int, int, int] | tuple[int, int, int, int]
ANN, BOB = "ann-has-this-long-key", "bob-has-this-long-key"


def folders_in(folder: Path) -> OwnerFolders:
    """The folders of an installation that has nothing yet."""
    return installation_folders(folder / "data")


def site_in(folder: Path, **parts: Any) -> Site:
    """A site whose files are below a folder."""
    usual: dict[str, Any] = {"folders": folders_in(folder), "door": Door()}
    return Site(**{**usual, **parts})


@asynccontextmanager
async def served(
    site: Site, routes: Iterable[web.RouteDef] = (), services: Mapping[type, Any] | None = None
) -> AsyncGenerator[Client]:
    """A client of a site."""
    application = make_application(site, routes, services)
    # The client would otherwise follow redirections and keep cookies by itself, which is what is to be tested.
    async with TestClient(TestServer(application)) as client:
        yield client


@asynccontextmanager
async def at_home(folder: Path, **parts: Any) -> AsyncGenerator[Client]:
    """A client of a site in this folder."""
    async with served(site_in(folder, **parts)) as client:
        yield client


def locked(**parts: Any) -> Door:
    """A door to which Ann and Bob have keys."""
    keys = [StatedKey.parse(f"ann={ANN}"), StatedKey.parse(f"bob={BOB}")]
    return Door(rings=(StatedKeys(keys),), **parts)


def bearer(key: str) -> dict[str, str]:
    """The header that says a key."""
    return {"Authorization": f"Bearer {key}"}


class HandClock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def rate(self, burst: float, per_second: float) -> Rate:
        """A rate that goes by it."""
        return Rate(burst, per_second, clock=self)


def png(
    size: tuple[int, int] = (4, 3), colour: Colour = (200, 100, 50, 255), texts: Mapping[str, str] | None = None
) -> bytes:
    """A picture of one colour."""
    info = PngInfo()
    for name, text in (texts or {}).items():
        info.add_text(name, text)
    file = io.BytesIO()
    Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def picture(content: bytes) -> Image.Image:
    """A picture that was sent."""
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def put(path: Path, content: bytes | str = b"something") -> Path:
    """A file, and the folders around it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def form(name: str = "x.png", content: bytes = b"", **fields: str) -> dict[str, Any]:
    """What to send as a form with a file called `image`, and other fields.

    Written out here, for aiohttp's client changes names or refuses to send them.
    """
    parts = [f'form-data; name="image"; filename="{name}"\r\n\r\n'.encode() + (content or png())]
    parts += [f'form-data; name="{field}"\r\n\r\n{value}'.encode() for field, value in fields.items()]
    lines = b"".join(b"--limit\r\nContent-Disposition: " + part + b"\r\n" for part in parts)
    headers = {"Content-Type": "multipart/form-data; boundary=limit"}
    return {"data": io.BytesIO(lines + b"--limit--\r\n"), "headers": headers}


@asynccontextmanager
async def connected(client: Client) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection over which anything can be sent."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def told(client: Client, method: str, path: str, **request: Any) -> tuple[int, Any]:
    """Status and JSON of an answer."""
    async with client.request(method, path, **request) as answer:
        text = await answer.text(errors="replace")
        body = await answer.json() if text and answer.content_type == "application/json" else text
        return answer.status, body


async def asked(client: Client, path: str, **request: Any) -> Any:
    """What a GET gives that goes well, in JSON."""
    status, body = await told(client, "GET", path, **request)
    assert status == 200, body
    return body
