"""Models: what can be named, and what is known of a file without its weights."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from server.web.site import Limits
from tests.web_site import asked, at_home, folders_in, picture, png, put, told

pytestmark = pytest.mark.anyio


def model(tmp_path: Path, name: str, metadata: Any = None, content: bytes = b"weights") -> Path:
    """A safetensors file, as far as its head goes."""
    header = json.dumps({} if metadata is None else {"__metadata__": metadata}).encode()
    path = folders_in(tmp_path).models(name)
    return put(path, len(header).to_bytes(8, "little") + header + content)


async def test_models_are_listed_by_kind(tmp_path: Path):
    model(tmp_path, "loras/a.safetensors")
    model(tmp_path, "loras/sub/b.safetensors")
    put(folders_in(tmp_path).models("loras") / "readme.txt")
    (folders_in(tmp_path).models("ipadapter")).mkdir()
    async with at_home(tmp_path) as client:
        kinds = await asked(client, "/models")
        assert {"checkpoints", "loras", "vae", "controlnet", "ipadapter"} <= {*kinds}
        assert await asked(client, "/api/models/loras") == ["a.safetensors", "sub/b.safetensors"]
        assert await asked(client, "/models/ipadapter") == []
        assert (await told(client, "GET", "/models/nonsense"))[0] == 404


async def test_checkpoints_are_those_that_the_loader_offers(tmp_path: Path):
    put(folders_in(tmp_path).models("checkpoints") / "mine" / "model_index.json", "{}")
    async with at_home(tmp_path) as client:
        assert await asked(client, "/models/checkpoints") == ["loomlet", "mine"]
        details = {each["name"]: each for each in await asked(client, "/experiment/models/checkpoints")}
        assert details["mine"]["size"] == 2
        assert details["loomlet"]["size"] > 1_000_000
        assert details["loomlet"].keys() == {"name", "pathIndex", "modified", "created", "size"}


async def test_embeddings_are_named_as_in_prompts(tmp_path: Path):
    put(folders_in(tmp_path).models("embeddings") / "sub" / "bad.v2.safetensors")
    put(folders_in(tmp_path).models("embeddings") / "good.pt")
    async with at_home(tmp_path) as client:
        assert await asked(client, "/embeddings") == ["good", "sub/bad.v2"]


async def test_folders_of_models_are_told_without_paths_of_this_machine(tmp_path: Path):
    async with at_home(tmp_path) as client:
        for path in ("/experiment/models", "/internal/folder_paths"):
            found = await asked(client, path)
            assert str(tmp_path) not in json.dumps(found)
        assert {"name": "loras", "folders": ["models/loras"]} in await asked(client, "/experiment/models")
        assert "configs" not in {each["name"] for each in await asked(client, "/experiment/models")}


async def test_details_tell_size_and_times(tmp_path: Path):
    state = model(tmp_path, "loras/a.safetensors").stat()
    async with at_home(tmp_path) as client:
        assert await asked(client, "/experiment/models/loras") == [
            {
                "name": "a.safetensors",
                "pathIndex": 0,
                "modified": state.st_mtime,
                "created": state.st_ctime,
                "size": state.st_size,
            }
        ]
        assert (await told(client, "GET", "/experiment/models/nonsense"))[0] == 404


async def test_metadata_is_what_a_file_says_of_itself(tmp_path: Path):
    model(tmp_path, "loras/sub/a.safetensors", {"ss_steps": "5", "title": "ä"})
    async with at_home(tmp_path) as client:
        found = await asked(client, "/view_metadata/loras?filename=sub/a.safetensors")
        assert found == {"ss_steps": "5", "title": "ä"}


async def test_a_file_that_says_nothing_of_itself_is_not_found(tmp_path: Path):
    folder = folders_in(tmp_path).models("loras")
    model(tmp_path, "loras/silent.safetensors")
    put(folder / "short.safetensors", b"123")
    put(folder / "huge.safetensors", b"\xff" * 100)
    put(folder / "broken.safetensors", (5).to_bytes(8, "little") + b"{{{{{")
    put(folder / "list.safetensors", (2).to_bytes(8, "little") + b"[]")
    put(folder / "deep.safetensors", (9000).to_bytes(8, "little") + b"[" * 9000)
    model(tmp_path, "loras/text.safetensors", "text")
    model(tmp_path, "loras/other.ckpt", {"a": "b"})
    (folder / "folder.safetensors").mkdir()
    async with at_home(tmp_path) as client:
        for name in ("", "missing.safetensors", *(path.name for path in folder.iterdir())):
            assert (await told(client, "GET", f"/view_metadata/loras?filename={name}"))[0] == 404, name
        assert (await told(client, "GET", "/view_metadata/nonsense?filename=a.safetensors"))[0] == 404
        assert (await told(client, "GET", "/view_metadata/..?filename=a.safetensors"))[0] == 404
        assert (await told(client, "GET", "/view_metadata/loras?filename=../a.safetensors"))[0] == 403


async def test_a_linked_model_is_described(tmp_path: Path):
    elsewhere = model(tmp_path, "loras/a.safetensors", {"a": "b"}).rename(tmp_path / "a.safetensors")
    (folders_in(tmp_path).models("loras") / "a.safetensors").symlink_to(elsewhere)
    async with at_home(tmp_path) as client:
        assert await asked(client, "/view_metadata/loras?filename=a.safetensors") == {"a": "b"}


PREVIEW = "/experiment/models/preview/loras/0/"


@pytest.mark.parametrize("beside", ["a.png", "a.preview.png", "a.jpg"])
async def test_a_picture_beside_a_model_shows_it(tmp_path: Path, beside: str):
    model(tmp_path, "loras/sub/a.safetensors")
    put(folders_in(tmp_path).models("loras") / "sub" / beside, png(size=(7, 5)))
    async with at_home(tmp_path) as client, client.get(f"{PREVIEW}sub%2Fa.safetensors") as answer:
        assert answer.content_type == "image/webp"
        assert (picture(await answer.read()).format, picture(await answer.read()).size) == ("WEBP", (7, 5))


async def test_a_picture_in_a_models_metadata_shows_it(tmp_path: Path):
    covers = json.dumps([base64.b64encode(png(size=(6, 5))).decode()])
    model(tmp_path, "loras/a.safetensors", {"ssmd_cover_images": covers})
    async with at_home(tmp_path) as client, client.get(f"{PREVIEW}a.safetensors") as answer:
        assert picture(await answer.read()).size == (6, 5)


@pytest.mark.parametrize(
    ("cover", "status"),
    [
        ("[]", 404),
        ("{}", 404),
        ("5", 404),
        ("nonsense", 404),
        ('["no base64!"]', 404),
        ("[5]", 404),
        (json.dumps([base64.b64encode(b"no picture").decode()]), 415),
        (json.dumps([base64.b64encode(png(size=(200, 200))).decode()]), 413),
    ],
)
async def test_a_cover_that_cannot_be_shown_does_no_harm(tmp_path: Path, cover: str, status: int):
    model(tmp_path, "loras/a.safetensors", {"ssmd_cover_images": cover})
    async with at_home(tmp_path, limits=Limits(picture_pixels=10_000)) as client:
        assert (await told(client, "GET", f"{PREVIEW}a.safetensors"))[0] == status


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{PREVIEW}missing.safetensors", 404),
        (f"{PREVIEW}..%2F..%2Fsecret.png", 403),
        (f"{PREVIEW}%2Fetc%2Fpasswd", 403),
        (f"{PREVIEW}..%5Csecret", 403),
        ("/experiment/models/preview/loras/1/a.safetensors", 404),
        ("/experiment/models/preview/loras/x/a.safetensors", 400),
        ("/experiment/models/preview/../0/a.safetensors", 404),
        ("/experiment/models/preview/%2E%2E/0/secret.png", 404),
        ("/experiment/models/preview/..%2F..%2Finput/0/a.png", 404),
    ],
)
async def test_no_picture_is_shown_from_elsewhere(tmp_path: Path, path: str, status: int):
    put(folders_in(tmp_path).data / "secret.png", png())
    put(folders_in(tmp_path).uploads / "a.png", png())
    async with at_home(tmp_path) as client:
        assert (await told(client, "GET", path))[0] == status
