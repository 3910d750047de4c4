"""`/view`: files of the three folders, as they are or made over."""

from pathlib import Path

import pytest
from PIL import Image

from server.web.site import Limits
from tests.web_site import at_home, folders_in, picture, png, put, site_in, told

pytestmark = pytest.mark.anyio


async def test_a_file_of_each_folder_is_sent_as_it_is(tmp_path: Path):
    folders = folders_in(tmp_path)
    for kind, folder in (("output", folders.output), ("input", folders.uploads), ("temp", folders.temp)):
        put(folder / "a.png", png(texts={"prompt": kind}))
    async with at_home(tmp_path) as client:
        for kind in ("output", "input", "temp"):
            async with client.get("/view", params={"filename": "a.png", "type": kind}) as answer:
                assert await answer.read() == png(texts={"prompt": kind})
                assert answer.content_type == "image/png"
                assert 'filename="a.png"' in answer.headers["Content-Disposition"]


async def test_output_is_where_a_file_is_looked_for_if_nothing_is_said(tmp_path: Path):
    put(folders_in(tmp_path).output / "sub" / "a.txt", "here")
    async with at_home(tmp_path) as client:
        assert await told(client, "GET", "/view?filename=a.txt&subfolder=sub") == (200, "here")
        assert await told(client, "GET", "/api/view?filename=a.txt&subfolder=sub") == (200, "here")


async def test_an_annotated_name_says_its_folder(tmp_path: Path):
    put(folders_in(tmp_path).temp / "sub" / "a.txt", "temporary")
    async with at_home(tmp_path) as client:
        params = {"filename": "sub/a.txt [temp]", "type": "output"}
        assert await told(client, "GET", "/view", params=params) == (200, "temporary")


async def test_examples_are_looked_for_among_inputs(tmp_path: Path):
    from dataclasses import replace

    put(tmp_path / "examples" / "boat.txt", "a boat")
    site = site_in(tmp_path)
    folders = replace(site.folders, examples=tmp_path / "examples")
    async with at_home(tmp_path, folders=folders) as client:
        assert await told(client, "GET", "/view?filename=boat.txt&type=input") == (200, "a boat")


async def test_a_name_with_folders_in_front_is_found_by_its_last_part_too(tmp_path: Path):
    put(folders_in(tmp_path).output / "sub" / "a.txt", "here")
    async with at_home(tmp_path) as client:
        assert await told(client, "GET", "/view?filename=sub/a.txt&subfolder=sub") == (200, "here")


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 404),
        ("filename=", 400),
        ("filename=missing.png", 404),
        ("filename=/etc/passwd", 400),
        ("filename=../a.png", 400),
        ("filename=a.png&type=elsewhere", 400),
        ("filename=a.png&subfolder=..", 403),
        ("filename=a.png&subfolder=/etc", 403),
        ("filename=folder", 404),
        ("filename=%00", 400),
    ],
)
async def test_what_is_no_file_in_a_folder_is_refused(tmp_path: Path, query: str, status: int):
    put(folders_in(tmp_path).output / "a.png")
    (folders_in(tmp_path).output / "folder").mkdir()
    async with at_home(tmp_path) as client:
        found, body = await told(client, "GET", f"/view?{query}")
        assert found == status
        assert isinstance(body["error"], str)


async def test_a_preview_is_smaller_and_of_the_kind_asked_for(tmp_path: Path):
    noise = Image.effect_noise((64, 64), 90).convert("RGB")
    folders_in(tmp_path).output.mkdir(parents=True)
    noise.save(folders_in(tmp_path).output / "a.png", pnginfo=None)
    async with at_home(tmp_path) as client:
        sizes: dict[str, int] = {}
        for preview in ("webp", "jpeg", "jpeg;5", "webp;nonsense", "tiff"):
            async with client.get("/view", params={"filename": "a.png", "preview": preview}) as answer:
                content = await answer.read()
                sizes[preview] = len(content)
                kind = "jpeg" if preview.startswith("jpeg") else "webp"
                assert answer.content_type == f"image/{kind}"
                assert (picture(content).format, picture(content).size) == (kind.upper(), (64, 64))
        assert sizes["jpeg;5"] < sizes["jpeg"]
        assert sizes["webp;nonsense"] == sizes["webp"] == sizes["tiff"]


async def test_a_jpeg_preview_becomes_webp_where_transparency_is_asked_for(tmp_path: Path):
    put(folders_in(tmp_path).output / "a.png", png(colour=(9, 9, 9, 100)))
    async with at_home(tmp_path) as client, client.get("/view?filename=a.png&preview=jpeg&channel=rgba") as answer:
        assert picture(await answer.read()).getchannel("A").getextrema() == (100, 100)


async def test_channels_come_alone(tmp_path: Path):
    put(folders_in(tmp_path).output / "a.png", png(colour=(200, 100, 50, 70)))
    async with at_home(tmp_path) as client:
        async with client.get("/view?filename=a.png&channel=rgb") as answer:
            colours = picture(await answer.read())
        async with client.get("/view?filename=a.png&channel=a") as answer:
            alpha = picture(await answer.read())
    assert (colours.mode, colours.getpixel((0, 0))) == ("RGB", (200, 100, 50))
    assert (alpha.mode, alpha.getpixel((0, 0))) == ("RGBA", (0, 0, 0, 70))


async def test_a_preview_says_nothing_that_was_written_into_the_picture(tmp_path: Path):
    put(folders_in(tmp_path).output / "a.png", png(texts={"prompt": "a secret"}))
    async with at_home(tmp_path) as client:
        for query in ("preview=webp", "channel=rgb", "channel=a"):
            async with client.get(f"/view?filename=a.png&{query}") as answer:
                assert b"a secret" not in await answer.read()


@pytest.mark.parametrize("query", ["", "&preview=webp", "&channel=rgb"])
async def test_what_a_client_has_already_is_not_sent_again(tmp_path: Path, query: str):
    path = put(folders_in(tmp_path).output / "a.png", png())
    async with at_home(tmp_path) as client:
        async with client.get(f"/view?filename=a.png{query}") as first:
            etag = first.headers["ETag"]
        async with client.get(f"/view?filename=a.png{query}", headers={"If-None-Match": etag}) as again:
            assert (again.status, await again.read()) == (304, b"")
        put(path, png(size=(9, 9)))
        async with client.get(f"/view?filename=a.png{query}", headers={"If-None-Match": etag}) as changed:
            assert changed.status == 200


async def test_a_part_of_a_file_can_be_asked_for(tmp_path: Path):
    put(folders_in(tmp_path).output / "a.mp4", b"0123456789")
    async with at_home(tmp_path) as client:
        async with client.get("/view?filename=a.mp4", headers={"Range": "bytes=2-4"}) as answer:
            assert (answer.status, await answer.read()) == (206, b"234")
            assert "Last-Modified" in answer.headers
        async with client.get("/view?filename=a.mp4", headers={"Range": "bytes=20-"}) as answer:
            assert answer.status == 416


async def test_head_tells_of_a_file_without_sending_it(tmp_path: Path):
    put(folders_in(tmp_path).output / "a.mp4", b"0123456789")
    async with at_home(tmp_path) as client, client.head("/view?filename=a.mp4") as answer:
        assert (answer.status, answer.headers["Content-Length"], await answer.read()) == (200, "10", b"")


async def test_a_file_is_never_mistaken_for_the_packed_form_of_another(tmp_path: Path):
    put(folders_in(tmp_path).output / "a.txt", "this one")
    put(folders_in(tmp_path).output / "a.txt.gz", "another one")
    async with at_home(tmp_path) as client:
        answer = await told(client, "GET", "/view?filename=a.txt", headers={"Accept-Encoding": "gzip"})
        assert answer == (200, "this one")


@pytest.mark.parametrize(
    "name", ["a.html", "a.xhtml", "a.svg", "a.js", "a.css", "a.xml", "a.pdf", "a.HTM", "a.mjs", "a"]
)
async def test_nothing_that_a_browser_would_run_is_sent_as_what_it_is(tmp_path: Path, name: str):
    put(folders_in(tmp_path).output / name, "<script>alert(1)</script>")
    async with at_home(tmp_path) as client, client.get("/view", params={"filename": name}) as answer:
        assert answer.content_type == "application/octet-stream"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"].startswith("sandbox;")
        assert answer.headers["Content-Disposition"].startswith("attachment")


async def test_names_with_any_letters_are_found(tmp_path: Path):
    async with at_home(tmp_path) as client:
        for name in ("ein Bild ä.txt", "画像.txt", "a\"b'c;d.txt", "a%2Fb.txt", "100%.txt", "a+b.txt", "a..b.txt"):
            put(folders_in(tmp_path).output / name, name)
            assert await told(client, "GET", "/view", params={"filename": name}) == (200, name)


async def test_what_is_no_picture_has_no_preview(tmp_path: Path):
    put(folders_in(tmp_path).output / "a.png", b"no picture")
    put(folders_in(tmp_path).output / "b.png", png(size=(50, 50))[:-40])
    async with at_home(tmp_path) as client:
        for name in ("a.png", "b.png"):
            for query in ("preview=webp", "channel=rgb", "channel=a"):
                status, body = await told(client, "GET", f"/view?filename={name}&{query}")
                assert status == 415
                assert "picture" in body["error"]


async def test_a_small_file_that_claims_to_be_a_huge_picture_is_not_decoded(tmp_path: Path):
    put(folders_in(tmp_path).output / "bomb.png", png(size=(300, 300)))
    async with at_home(tmp_path, limits=Limits(picture_pixels=300 * 299)) as client:
        status, body = await told(client, "GET", "/view?filename=bomb.png&preview=webp")
        assert status == 413
        assert "300x300" in body["error"]


async def test_a_pipe_is_not_read(tmp_path: Path):
    import os

    folders_in(tmp_path).output.mkdir(parents=True)
    os.mkfifo(folders_in(tmp_path).output / "a.png")
    async with at_home(tmp_path) as client:
        assert (await told(client, "GET", "/view?filename=a.png"))[0] == 404
