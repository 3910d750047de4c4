"""`/settings`: what is set stays set, and what cannot be read is not lost."""

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.web_site import asked, at_home, folders_in, put, told

pytestmark = pytest.mark.anyio


def file(tmp_path: Path) -> Path:
    return folders_in(tmp_path).user / "comfy.settings.json"


async def test_settings_are_merged_and_outlive_the_server(tmp_path: Path):
    async with at_home(tmp_path) as client:
        assert await asked(client, "/settings") == {}
        assert await told(client, "POST", "/settings", json={"a": 1, "b": {"c": [None, "ä"]}}) == (200, "")
        assert await told(client, "POST", "/api/settings", json={"a": 2}) == (200, "")
    async with at_home(tmp_path) as client:
        assert await asked(client, "/api/settings") == {"a": 2, "b": {"c": [None, "ä"]}}


async def test_one_setting_is_read_and_written_by_its_name(tmp_path: Path):
    async with at_home(tmp_path) as client:
        assert await asked(client, "/settings/Comfy.Theme") is None
        values: list[Any] = ["dark", 5, None, False, {"a": [0]}, [1.5]]
        for value in values:
            assert (await told(client, "POST", "/settings/Comfy.Theme", data=json.dumps(value)))[0] == 200
            assert await asked(client, "/settings/Comfy.Theme") == value
        assert (await told(client, "POST", "/settings/a%2Fb", json=1))[0] == 200
        assert await asked(client, "/settings") == {"Comfy.Theme": [1.5], "a/b": 1}


async def test_settings_made_at_the_same_time_are_all_kept(tmp_path: Path):
    async with at_home(tmp_path) as client:
        await asyncio.gather(*(told(client, "POST", f"/settings/s{number}", json=number) for number in range(20)))
        assert await asked(client, "/settings") == {f"s{number}": number for number in range(20)}


@pytest.mark.parametrize("broken", [b'{"a": 1', b"[1, 2]", b"\xff\xfe", b""])
async def test_a_file_that_cannot_be_read_is_kept_aside(tmp_path: Path, broken: bytes):
    put(file(tmp_path), broken)
    async with at_home(tmp_path) as client:
        assert await asked(client, "/settings") == {}
        assert file(tmp_path).read_bytes() == broken
        assert (await told(client, "POST", "/settings/a", json=1))[0] == 200
        assert await asked(client, "/settings") == {"a": 1}
        put(file(tmp_path), b"broken again")
        assert (await told(client, "POST", "/settings", json={"b": 2}))[0] == 200
    aside = sorted(file(tmp_path).parent.glob("*unreadable*"))
    assert [path.read_bytes() for path in aside] == [broken, b"broken again"]


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"[]", b"5", b"null", b'{"a": NaN}', b'{"a": "\xff"}', b"[" * 10_000]
)
async def test_what_is_no_object_is_refused_and_nothing_changes(tmp_path: Path, body: bytes):
    put(file(tmp_path), b'{"a":1}')
    async with at_home(tmp_path) as client:
        status, answer = await told(client, "POST", "/settings", data=body)
        assert (status, isinstance(answer["error"], str)) == (400, True)
    assert file(tmp_path).read_bytes() == b'{"a":1}'


async def test_settings_do_not_grow_without_end(tmp_path: Path):
    async with at_home(tmp_path) as client:
        for name, expected in (("a", 200), ("b", 413)):
            body = io.BytesIO(b'"' + b"x" * 3_000_000 + b'"')
            assert (await told(client, "POST", f"/settings/{name}", data=body))[0] == expected
        assert list(await asked(client, "/settings")) == ["a"]
