"""`/userdata` and `/v2/userdata`: what editors keep."""

import asyncio
from pathlib import Path

import pytest

from server.web.site import Limits
from tests.web_site import asked, at_home, folders_in, put, told

pytestmark = pytest.mark.anyio


def user(tmp_path: Path) -> Path:
    return folders_in(tmp_path).user


async def test_a_file_is_kept_read_and_removed(tmp_path: Path):
    async with at_home(tmp_path) as client:
        name = "/userdata/workflows%2Fmine.json"
        assert await told(client, "POST", name, data=b'{"a":1}') == (200, "workflows/mine.json")
        assert (user(tmp_path) / "workflows" / "mine.json").read_bytes() == b'{"a":1}'
        assert await told(client, "GET", f"/api{name}") == (200, {"a": 1})
        assert await told(client, "DELETE", name) == (204, "")
        assert (await told(client, "GET", name))[0] == 404
        assert (await told(client, "DELETE", name))[0] == 404


async def test_a_file_is_only_replaced_where_that_is_wanted(tmp_path: Path):
    async with at_home(tmp_path) as client:
        assert (await told(client, "POST", "/userdata/a.txt", data=b"1"))[0] == 200
        assert (await told(client, "POST", "/userdata/a.txt?overwrite=false", data=b"2"))[0] == 409
        assert await told(client, "GET", "/userdata/a.txt") == (200, "1")
        assert (await told(client, "POST", "/userdata/a.txt?overwrite=true", data=b"3"))[0] == 200
        assert await told(client, "GET", "/userdata/a.txt") == (200, "3")


async def test_writing_tells_size_and_times_where_that_is_wanted(tmp_path: Path):
    async with at_home(tmp_path) as client:
        status, info = await told(client, "POST", "/userdata/a%2Fb.txt?full_info=true", data=b"123")
    state = (user(tmp_path) / "a" / "b.txt").stat()
    expected = {"path": "a/b.txt", "size": 3, "modified": state.st_mtime, "created": state.st_ctime}
    assert (status, info) == (200, expected)


async def test_a_folder_is_listed_in_three_forms(tmp_path: Path):
    for name in ("workflows/a.json", "workflows/sub/b.json", "workflows/.hidden", "other.json"):
        put(user(tmp_path) / name, "{}")
    async with at_home(tmp_path) as client:
        assert await asked(client, "/userdata?dir=workflows") == ["a.json"]
        assert await asked(client, "/userdata?dir=workflows&recurse=true") == ["a.json", "sub/b.json"]
        split = await asked(client, "/userdata?dir=workflows&recurse=true&split=true")
        assert split == [["a.json", "a.json"], ["sub/b.json", "sub", "b.json"]]
        full = await asked(client, "/userdata?dir=workflows&recurse=true&split=true&full_info=true")
        assert [(each["path"], each["size"]) for each in full] == [("a.json", 2), ("sub/b.json", 2)]


@pytest.mark.parametrize(
    ("query", "status"),
    [("", 400), ("dir=", 400), ("dir=missing", 404), ("dir=..", 403), ("dir=/etc", 403), ("dir=a&recurse=maybe", 400)],
)
async def test_a_folder_that_is_none_is_refused(tmp_path: Path, query: str, status: int):
    async with at_home(tmp_path) as client:
        assert (await told(client, "GET", f"/userdata?{query}"))[0] == status


async def test_everything_below_a_folder_comes_folders_first(tmp_path: Path):
    for name in ("b.txt", "z/y.txt", "z/x/w.txt", "a.txt"):
        put(user(tmp_path) / name, "12")
    async with at_home(tmp_path) as client:
        found = await asked(client, "/v2/userdata")
        assert [(each["path"], each["type"]) for each in found] == [
            ("z", "directory"),
            ("z/x", "directory"),
            ("z/x/w.txt", "file"),
            ("z/y.txt", "file"),
            ("a.txt", "file"),
            ("b.txt", "file"),
        ]
        assert [(each["name"], each["path"]) for each in await asked(client, "/v2/userdata?path=z/x")] == [
            ("w.txt", "z/x/w.txt")
        ]
        assert {"size", "modified"} <= found[-1].keys()
        assert (await told(client, "GET", "/v2/userdata?path=.."))[0] == 403
        assert (await told(client, "GET", "/v2/userdata?path=missing"))[0] == 404


async def test_somebody_who_has_kept_nothing_has_nothing(tmp_path: Path):
    async with at_home(tmp_path) as client:
        assert await asked(client, "/v2/userdata") == []


async def test_a_file_gets_another_name(tmp_path: Path):
    for name in ("a.txt", "taken.txt"):
        put(user(tmp_path) / name, name)
    async with at_home(tmp_path) as client:
        assert await told(client, "POST", "/userdata/a.txt/move/sub%2Fb.txt") == (200, "sub/b.txt")
        assert (await told(client, "POST", "/userdata/a.txt/move/c.txt"))[0] == 404
        status, _ = await told(client, "POST", "/userdata/sub%2Fb.txt/move/taken.txt?overwrite=false")
        assert (status, await told(client, "GET", "/userdata/taken.txt")) == (409, (200, "taken.txt"))
        status, info = await told(client, "POST", "/userdata/sub%2Fb.txt/move/taken.txt?full_info=true")
        assert (status, info["path"]) == (200, "taken.txt")
        assert await told(client, "GET", "/userdata/taken.txt") == (200, "a.txt")


async def test_moves_to_one_name_at_the_same_time_lose_nothing(tmp_path: Path):
    for number in range(8):
        put(user(tmp_path) / f"{number}.txt", str(number))
    async with at_home(tmp_path) as client:
        moves = (told(client, "POST", f"/userdata/{number}.txt/move/one.txt?overwrite=false") for number in range(8))
        statuses = [status for status, _ in await asyncio.gather(*moves)]
    assert sorted(statuses) == [200] + [409] * 7
    assert sorted(path.read_text() for path in user(tmp_path).iterdir()) == [str(number) for number in range(8)]


@pytest.mark.parametrize("name", ["..%2Fa", "%2Fetc%2Fpasswd", "..%5Ca", "a%2F..%2F..%2Fb", "%2E%2E%2Fa"])
async def test_no_name_leads_out_of_the_owners_folder(tmp_path: Path, name: str):
    put(user(tmp_path) / "a", "inside")
    put(user(tmp_path).parent / "a", "outside")
    async with at_home(tmp_path) as client:
        for method, path in (
            ("GET", f"/userdata/{name}"),
            ("POST", f"/userdata/{name}"),
            ("DELETE", f"/userdata/{name}"),
            ("POST", f"/userdata/{name}/move/b"),
            ("POST", f"/userdata/a/move/{name}"),
        ):
            status, body = await told(client, method, path, data=b"x" if method == "POST" else None)
            assert (status, "error" in body) == (403, True), path
    assert ((user(tmp_path) / "a").read_text(), (user(tmp_path).parent / "a").read_text()) == ("inside", "outside")


async def test_links_lead_nowhere(tmp_path: Path):
    outside = put(tmp_path / "outside" / "secret.txt", "secret").parent
    user(tmp_path).mkdir(parents=True)
    (user(tmp_path) / "link").symlink_to(outside)
    (user(tmp_path) / "secret.txt").symlink_to(outside / "secret.txt")
    async with at_home(tmp_path) as client:
        for path in (
            "/userdata/secret.txt",
            "/userdata/link%2Fsecret.txt",
            "/userdata?dir=link",
            "/v2/userdata?path=link",
        ):
            assert (await told(client, "GET", path))[0] == 403
        assert (await told(client, "POST", "/userdata/link%2Fnew.txt", data=b"x"))[0] == 403
        assert await asked(client, "/v2/userdata") == []
    assert [path.name for path in outside.iterdir()] == ["secret.txt"]


async def test_a_name_that_is_a_folders_is_told(tmp_path: Path):
    put(user(tmp_path) / "folder" / "a.txt")
    async with at_home(tmp_path) as client:
        assert (await told(client, "POST", "/userdata/folder", data=b"x"))[0] == 409
        assert (await told(client, "POST", "/userdata/folder%2Fa.txt%2Fb", data=b"x"))[0] == 409
        assert (await told(client, "GET", "/userdata/folder"))[0] == 404
        assert (await told(client, "POST", "/userdata/%2E", data=b"x"))[0] in (400, 404, 405)


async def test_a_file_that_is_too_large_leaves_what_was_there(tmp_path: Path):
    async with at_home(tmp_path, limits=Limits(upload_bytes=1000)) as client:
        assert (await told(client, "POST", "/userdata/a.txt", data=b"1"))[0] == 200
        assert (await told(client, "POST", "/userdata/a.txt", data=b"2" * 1001))[0] == 413
        assert await told(client, "GET", "/userdata/a.txt") == (200, "1")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.txt"]
