"""`/upload/image` and `/upload/mask`: whole files, under names of their own, and nowhere else."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import FormData

from server.web.files.staging import remove_stale
from server.web.parameters import STAGING
from server.web.site import Limits
from tests.web_site import Client, at_home, connected, folders_in, form, picture, png, put, told

pytestmark = pytest.mark.anyio


async def uploaded(client: Client, sent: Mapping[str, Any], path: str = "/upload/image") -> Any:
    """The answer to an upload that goes well."""
    status, body = await told(client, "POST", path, **sent)
    assert status == 200, body
    return body


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_an_upload_is_kept_where_nodes_look_for_it(tmp_path: Path):
    async with at_home(tmp_path) as client:
        assert await uploaded(client, form("a.png", b"one")) == {"name": "a.png", "subfolder": "", "type": "input"}
        kept = await uploaded(client, form("a.png", b"two", type="output", subfolder="sub/deep"), "/api/upload/image")
        assert kept == {"name": "a.png", "subfolder": "sub/deep", "type": "output"}
        await uploaded(client, form("b/c.png", b"three", type="temp", subfolder="a"))
    assert contents(folders_in(tmp_path).uploads) == {"a.png": b"one"}
    assert contents(folders_in(tmp_path).output) == {"sub/deep/a.png": b"two"}
    assert contents(folders_in(tmp_path).temp) == {"a/b/c.png": b"three"}


async def pieces_of(content: bytes) -> AsyncGenerator[bytes]:
    """A body whose size is not known beforehand."""
    for start in range(0, len(content), 50_000):
        yield content[start : start + 50_000]


async def test_another_file_of_the_same_name_gets_a_number(tmp_path: Path):
    async with at_home(tmp_path) as client:
        names = [(await uploaded(client, form("a.png", content)))["name"] for content in (b"1", b"2", b"3", b"2")]
    assert names == ["a.png", "a (1).png", "a (2).png", "a (1).png"]
    assert contents(folders_in(tmp_path).uploads) == {"a.png": b"1", "a (1).png": b"2", "a (2).png": b"3"}


@pytest.mark.parametrize("said", ["true", "1"])
async def test_a_file_is_replaced_where_that_is_wanted(tmp_path: Path, said: str):
    async with at_home(tmp_path) as client:
        await uploaded(client, form("a.png", b"1"))
        assert (await uploaded(client, form("a.png", b"2", overwrite=said)))["name"] == "a.png"
    assert contents(folders_in(tmp_path).uploads) == {"a.png": b"2"}


async def test_uploads_of_one_name_at_the_same_time_are_all_kept(tmp_path: Path):
    sent = [str(number).encode() * 70_000 for number in range(8)]
    async with at_home(tmp_path) as client:
        answers = await asyncio.gather(*(uploaded(client, form("a.png", content)) for content in sent))
        assert len({answer["name"] for answer in answers}) == 8
        for answer, content in zip(answers, sent, strict=True):
            assert (folders_in(tmp_path).uploads / answer["name"]).read_bytes() == content


async def test_the_same_file_at_the_same_time_is_kept_once(tmp_path: Path):
    async with at_home(tmp_path) as client:
        await asyncio.gather(*(uploaded(client, form("a.png", b"same")) for _ in range(8)))
    assert contents(folders_in(tmp_path).uploads) == {"a.png": b"same"}


async def test_fields_may_come_before_the_file_and_after_it(tmp_path: Path):
    before = FormData()
    before.add_field("subfolder", "sub")
    before.add_field("image", b"1", filename="a.png")
    async with at_home(tmp_path) as client:
        await uploaded(client, {"data": before})
        await uploaded(client, form("b.png", b"2", subfolder="sub"))
    assert contents(folders_in(tmp_path).uploads) == {"sub/a.png": b"1", "sub/b.png": b"2"}


@pytest.mark.parametrize(
    ("name", "fields", "status"),
    [
        ("../a.png", {}, 403),
        ("..\\\\a.png", {}, 403),
        ("a/../../a.png", {}, 403),
        ("a.png", {"subfolder": "../.."}, 403),
        ("a.png", {"subfolder": "/etc"}, 403),
        ("a.png", {"subfolder": "\\\\server\\share"}, 403),
        ("a.png", {"subfolder": "C:"}, 400),
        ("a.png", {"type": "models"}, 400),
        ("a:b.png", {}, 400),
        ("NUL", {}, 400),
        ("com1.png", {}, 400),
        ("a.png.", {}, 400),
        ("a\x01.png", {}, 400),
        (".bashrc", {}, 400),
        ("x" * 300, {}, 400),
        ("", {}, 400),
    ],
)
async def test_a_name_that_leads_elsewhere_is_refused_and_nothing_is_kept(
    tmp_path: Path, name: str, fields: dict[str, str], status: int
):
    async with at_home(tmp_path) as client:
        found, body = await told(client, "POST", "/upload/image", **form(name, b"1", **fields))
        assert (found, isinstance(body["error"], str)) == (status, True)
    assert contents(tmp_path) == {}


async def test_a_link_that_leads_elsewhere_is_not_written_through(tmp_path: Path):
    outside = put(tmp_path / "outside" / "a.png", b"mine").parent
    uploads = folders_in(tmp_path).uploads
    uploads.mkdir(parents=True)
    (uploads / "link").symlink_to(outside)
    (uploads / "a.png").symlink_to(outside / "a.png")
    async with at_home(tmp_path) as client:
        for fields in ({"subfolder": "link"}, {"subfolder": "link", "overwrite": "1"}, {"overwrite": "1"}):
            assert (await told(client, "POST", "/upload/image", **form("a.png", b"1", **fields)))[0] == 403
    assert contents(outside) == {"a.png": b"mine"}


async def test_a_file_where_a_folder_should_be_is_told(tmp_path: Path):
    put(folders_in(tmp_path).uploads / "a.png", b"1")
    (folders_in(tmp_path).uploads / "folder").mkdir()
    async with at_home(tmp_path) as client:
        status, _ = await told(client, "POST", "/upload/image", **form("b.png", b"1", subfolder="a.png"))
        assert status == 409
        status, _ = await told(client, "POST", "/upload/image", **form("folder", b"1", overwrite="1"))
        assert status == 409


async def test_what_is_too_large_is_refused_and_leaves_nothing(tmp_path: Path):
    async with at_home(tmp_path, limits=Limits(upload_bytes=200_000)) as client:
        assert (await told(client, "POST", "/upload/image", **form("a.png", b"1" * 100_000)))[0] == 200
        # Once with its size in the head, and once without.
        assert (await told(client, "POST", "/upload/image", **form("b.png", b"1" * 300_000)))[0] == 413
        sizeless = form("b.png", b"1" * 300_000)
        sizeless["data"] = pieces_of(sizeless["data"].getvalue())
        assert (await told(client, "POST", "/upload/image", **sizeless))[0] == 413
        assert (await told(client, "GET", "/features"))[1]["max_upload_size"] == 200_000
    assert list(contents(tmp_path)) == ["data/input/a.png"]


async def test_what_is_no_form_is_refused(tmp_path: Path):
    multipart = {"Content-Type": "multipart/form-data; boundary=x"}
    sent = [
        {"json": {"image": "a.png"}},
        {"data": {"image": "a.png"}},
        {"data": b""},
        {"data": b"", "headers": multipart},
        {"data": b"nonsense", "headers": multipart},
        {"data": b"--x\r\n\r\n", "headers": multipart},
        {"data": b"--x\r\nContent-Disposition: form-data; name=image; filename=a\r\n\r\n12", "headers": multipart},
        {"data": b"--x--\r\n", "headers": {"Content-Type": "multipart/form-data"}},
    ]
    async with at_home(tmp_path) as client:
        for request in sent:
            status, body = await told(client, "POST", "/upload/image", **request)
            assert (status, isinstance(body["error"], str)) == (400, True), request
    assert contents(tmp_path) == {}


async def test_a_form_says_what_it_lacks(tmp_path: Path):
    text_alone = FormData({"image": "text", "type": "input"}, default_to_multipart=True)
    nothing = FormData({"type": "input"}, default_to_multipart=True)
    async with at_home(tmp_path) as client:
        for data in (text_alone, nothing):
            status, body = await told(client, "POST", "/upload/image", data=data)
            assert status == 400
            assert [(wrong["in"], wrong["name"]) for wrong in body["problems"]] == [("form", "image")]


async def test_a_client_that_leaves_in_the_middle_leaves_nothing(tmp_path: Path):
    async with at_home(tmp_path) as client:
        head = "POST /upload/image HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
        part = (
            'Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\nContent-Disposition: form-data; name="image"'
        )
        staging = folders_in(tmp_path).temp / STAGING
        async with connected(client) as (_, writer):
            writer.write(f'{head}{part}; filename="a.png"\r\n\r\n12345'.encode())
            while not contents(staging):
                await asyncio.sleep(0.01)
        while contents(staging):
            await asyncio.sleep(0.01)
    assert contents(tmp_path) == {}


async def test_what_a_killed_server_left_half_is_removed_after_a_day(tmp_path: Path):
    import os

    old, new = (put(tmp_path / name) for name in (".old.part", ".new.part"))
    os.utime(old, (0, 0))
    remove_stale(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [new.name]


def reference(**parts: str) -> str:
    return json.dumps({"filename": "a.png", "type": "input", **parts})


async def masked(client: Client, mask: bytes, original_ref: str, name: str = "masked.png") -> tuple[int, Any]:
    return await told(client, "POST", "/upload/mask", **form(name, mask, original_ref=original_ref))


async def test_a_mask_becomes_the_transparency_of_the_original_with_its_texts(tmp_path: Path):
    put(folders_in(tmp_path).uploads / "a.png", png(colour=(1, 2, 3), texts={"prompt": "{}", "workflow": "ä"}))
    async with at_home(tmp_path) as client:
        status, body = await masked(client, png(colour=(9, 9, 9, 77)), reference())
        assert (status, body) == (200, {"name": "masked.png", "subfolder": "", "type": "input"})
    made = picture((folders_in(tmp_path).uploads / "masked.png").read_bytes())
    assert (made.format, made.getpixel((0, 0)), made.info) == ("PNG", (1, 2, 3, 77), {"prompt": "{}", "workflow": "ä"})


async def test_the_original_is_looked_for_among_outputs_if_nothing_is_said(tmp_path: Path):
    put(folders_in(tmp_path).output / "sub" / "a.png", png())
    async with at_home(tmp_path) as client:
        assert (await masked(client, png(), json.dumps({"filename": "a.png", "subfolder": "sub"})))[0] == 200
        assert (await masked(client, png(), json.dumps({"filename": "sub/a.png"})))[0] == 200


@pytest.mark.parametrize(
    ("original_ref", "status"),
    [
        (reference(filename="missing.png"), 404),
        (reference(filename="../secret.png"), 400),
        (reference(subfolder=".."), 403),
        (reference(type="elsewhere"), 400),
        (reference(filename="text.png"), 415),
        ("{}", 400),
        ("[]", 400),
        ("null", 400),
        ("nonsense", 400),
        ('{"filename": 5}', 400),
        ("", 400),
    ],
)
async def test_a_mask_of_nothing_is_refused_and_nothing_is_written(tmp_path: Path, original_ref: str, status: int):
    put(folders_in(tmp_path).uploads / "a.png", png())
    put(folders_in(tmp_path).uploads / "text.png", b"no picture")
    before = contents(tmp_path)
    async with at_home(tmp_path) as client:
        found, body = await masked(client, png(), original_ref)
        assert (found, isinstance(body["error"], str)) == (status, True)
    assert contents(tmp_path) == before


async def test_a_mask_of_another_size_or_without_a_picture_is_refused(tmp_path: Path):
    put(folders_in(tmp_path).uploads / "a.png", png(size=(4, 3)))
    async with at_home(tmp_path) as client:
        status, body = await masked(client, png(size=(5, 3)), reference())
        assert (status, "5x3" in body["error"], "4x3" in body["error"]) == (400, True, True)
        assert (await masked(client, b"no picture", reference()))[0] == 415
        status, body = await told(client, "POST", "/upload/mask", **form("m.png"))
        assert (status, body["problems"][0]["name"]) == (400, "original_ref")
    assert list(contents(tmp_path)) == ["data/input/a.png"]
