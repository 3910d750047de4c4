"""What goes along with every answer: how long it may be kept, whether it is packed, what a browser must not do."""

import gzip
from pathlib import Path

import pytest
from aiohttp import web

from server.web.endpoint import get
from server.web.middleware import cache_control
from tests.web_site import asked, at_home, folders_in, locked, put, served, site_in, told

pytestmark = pytest.mark.anyio

DAY, HOUR = "public, max-age=86400", "public, max-age=3600"


@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [
        ("/scripts/app.js", 200, "no-cache"),
        ("/style.css", 404, "no-cache"),
        ("/templates/index.json", 200, "no-cache"),
        ("/templates/index.de.json", 200, "no-cache"),
        ("/a.png", 200, DAY),
        ("/a.JPEG", 206, DAY),
        ("/a.webp", 301, DAY),
        ("/a.tif", 404, HOUR),
        ("/a.bmp", 303, "no-cache"),
        ("/a.png", 304, None),
        ("/a.png", 500, None),
        ("/view", 200, None),
        ("/other.json", 200, None),
        ("/", 200, None),
    ],
)
def test_how_long_an_answer_is_kept_goes_by_the_end_of_its_path(path: str, status: int, expected: str | None):
    assert cache_control(path, status, shared=True) == expected


async def test_an_answer_that_says_itself_how_long_is_left_alone(tmp_path: Path):
    async def show() -> web.Response:
        return web.Response(headers={"Cache-Control": "no-store"})

    async with served(site_in(tmp_path), [get("/a.png", show)]) as client, client.get("/a.png") as answer:
        assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/features", "/nothing", "/view", "/login", "/docs", "/view?filename=a.txt"])
async def test_every_answer_tells_browsers_what_not_to_do(tmp_path: Path, path: str):
    put(folders_in(tmp_path).output / "a.txt")
    for parts in ({}, {"door": locked()}):
        async with at_home(tmp_path, **parts) as client, client.get(path, allow_redirects=False) as answer:
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "same-origin"
            assert answer.headers["Server"] == "Latentloom"
            assert answer.headers["Content-Security-Policy"]


async def text() -> web.Response:
    return web.Response(text="a long text " * 1000)


async def test_texts_are_packed_where_the_site_is_to_and_the_client_can_read_it(tmp_path: Path):
    for compress in (False, True):
        site = site_in(tmp_path, compress=compress)
        async with served(site, [get("/text", text)]) as client:
            for accepted, packs in (("gzip", True), ("br, gzip;q=0.5", True), ("gzip;q=0", False), ("identity", False)):
                headers = {"Accept-Encoding": accepted}
                async with client.get("/text", headers=headers, auto_decompress=False) as answer:
                    body = await answer.read()
                    is_packed = answer.headers.get("Content-Encoding") == "gzip"
                    assert is_packed == (packs and compress)
                    assert (gzip.decompress(body) if is_packed else body) == (await text()).body
                    assert (answer.headers.get("Vary") == "Accept-Encoding") == compress


async def test_pictures_and_short_texts_are_not_packed(tmp_path: Path):
    put(folders_in(tmp_path).output / "a.txt", "a long text " * 1000)
    async with at_home(tmp_path, compress=True) as client:
        for path in ("/features", "/view?filename=a.txt"):
            async with client.get(path, headers={"Accept-Encoding": "gzip"}) as answer:
                assert "Content-Encoding" not in answer.headers
        assert "Access-Control" not in str(await asked(client, "/features"))


async def test_no_answer_tells_where_anything_is_on_this_machine(tmp_path: Path):
    paths = [
        "/system_stats",
        "/internal/folder_paths",
        "/experiment/models",
        "/experiment/models/checkpoints",
        "/users",
    ]
    paths += ["/view?filename=missing", "/userdata?dir=missing", "/view_metadata/loras?filename=a", "/nothing"]
    async with at_home(tmp_path) as client:
        for path in paths:
            _, body = await told(client, "GET", path)
            assert str(tmp_path) not in str(body)
            assert str(Path(__file__).parent.parent) not in str(body)
            assert "site-packages" not in str(body)
