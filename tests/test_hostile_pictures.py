"""Files that are not what they seem, through every door for pictures: none is decoded, run, or put anywhere else."""

import base64
import io
import json
import struct
import zlib
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import FormData
from PIL import Image

from tests.servers import PATIENCE, Client, serving
from tests.test_web_names import ATTACKS
from tests.web_site import form, png, told
from tests.workers import chain, use

pytestmark = pytest.mark.anyio


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def claiming(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG of which the head says what it measures, with next to nothing in it."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + pixels + chunk(b"IEND", b"")


def encoded(kind: str) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(file, kind)
    return file.getvalue()


SCRIPT = b"<script>alert(1)</script>"
HOSTILE: Mapping[str, bytes] = {
    "one byte": b"\x89",
    "a huge PNG": claiming(60_000, 60_000),
    "a PNG as wide as can be": claiming(2**31 - 1, 1),
    "a PNG of no size": claiming(0, 5),
    "a huge GIF": b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(3) + b";",
    "a huge PPM": b"P6 90000 90000 255\n" + bytes(100),
    "a huge BMP": b"BM" + struct.pack("<IIIIiiHHIIiiII", 100, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
    "a text that unpacks to a huge one": claiming(4, 4, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2 << 20)))),
    "half a PNG": encoded("PNG")[:2000],
    "half a JPEG": encoded("JPEG")[:700],
    "half a WebP": encoded("WEBP")[:700],
    "half a TIFF": encoded("TIFF")[:900],
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg">' + SCRIPT + b"</svg>",
    "HTML": b"<!doctype html>" + SCRIPT,
    "JavaScript": b"alert(1)",
    "GIF and JavaScript": b"GIF89a/*" + bytes(20) + b"*/=1;alert(1)",
    "PDF": b"%PDF-1.7\n1 0 obj <</JS (alert(1))>>",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (w) file\n",
    "a pickle": b"cos\nsystem\n(S'id'\ntR.",
}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Client]:
    folder = tmp_path_factory.mktemp("hostile")
    async with serving(folder) as client:
        status, _ = await told(client.http, "POST", "/upload/image", **form("good.png", png((64, 64))))
        assert status == 200
        yield client
        assert (await client.run(chain("Twist")))["status"] == "completed"
        assert (await client.get("/prompt"))["exec_info"] == {"queue_remaining": 0}
        async with client.http.get("/metrics") as answer:
            assert "latentloom_worker_restarts_total 0.0\n" in await answer.text()


def copying(name: str) -> dict[str, Any]:
    return {"1": use("LoadImage", image=name), "2": use("SaveImage", images=["1", 0], filename_prefix="copy")}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_an_upload_that_is_no_picture_is_never_shown_as_what_it_is(client: Client, kind: str):
    http = client.http
    for suffix in ("png", "svg", "html", "js"):
        status, kept = await told(http, "POST", "/upload/image", **form(f"{kind}.{suffix}", HOSTILE[kind]))
        assert status == 200
        place = {"filename": kept["name"], "type": "input"}
        async with http.get("/view", params=place) as answer:
            assert (answer.status, await answer.read()) == (200, HOSTILE[kind])
            expected = "image/png" if suffix == "png" else "application/octet-stream"
            assert (answer.content_type, answer.headers["X-Content-Type-Options"]) == (expected, "nosniff")
            assert answer.headers["Content-Security-Policy"].startswith("sandbox;")
        for more in ({"preview": "webp"}, {"preview": "jpeg;50"}, {"channel": "rgb"}, {"channel": "a"}):
            status, refused = await told(http, "GET", "/view", params=place | more)
            assert (status in (413, 415), isinstance(refused["error"], str)) == (True, True), (status, refused)


@pytest.mark.parametrize("kind", HOSTILE)
async def test_no_mask_is_made_of_what_is_no_picture(client: Client, kind: str):
    reference = json.dumps({"filename": "good.png", "type": "input"})
    sent = form("mask.png", HOSTILE[kind], original_ref=reference)
    status, refused = await told(client.http, "POST", "/upload/mask", **sent)
    assert (status in (413, 415), isinstance(refused["error"], str)) == (True, True), (status, refused)


@pytest.mark.parametrize("kind", HOSTILE)
async def test_a_job_with_what_is_no_picture_is_refused_or_fails_with_a_reason(client: Client, kind: str):
    content = HOSTILE[kind]
    inline = {"prompt": copying("a.png"), "files": {"a.png": base64.b64encode(content).decode()}}
    parts = FormData({"prompt": json.dumps(copying("a.png"))}, default_to_multipart=True)
    parts.add_field("files", io.BytesIO(content), filename="a.png", content_type="image/png")
    await told(client.http, "POST", "/upload/image", **form(f"{kind} at work.png", content))
    for request in ({"json": inline}, {"data": parts}, {"json": {"prompt": copying(f"{kind} at work.png")}}):
        status, answer = await told(client.http, "POST", f"/prompt?wait={PATIENCE}", **request)
        if status == 200:
            assert answer["status"] == "failed"
            assert (answer["error"]["node_id"], "WorkerDied" in answer["error"]["type"]) == ("1", False)
        else:
            assert status in (400, 413, 415)
            assert set(answer["error"]) == {"type", "message", "details", "extra_info"}


async def test_no_name_of_an_inline_picture_leads_anywhere(client: Client, tmp_path: Path):
    before = {path for path in tmp_path.parent.rglob("*.png") if "inline" not in path.parts}
    for name in (*ATTACKS, "\u202egnp.a", "a\ufeff.png", "e\u0301.png", "\U0001f600.png"):
        files = {name: base64.b64encode(png()).decode()}
        status, answer = await told(client.http, "POST", "/validate", json={"prompt": copying(name), "files": files})
        assert status in (200, 400, 403), (name, answer)
    after = {path for path in tmp_path.parent.rglob("*.png") if "inline" not in path.parts}
    assert after == before
