"""What an editor asks at its start: the machine, its nodes, its examples, its users, its log."""

import asyncio
import gzip
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from graph.describe import object_info
from graph.workflow import read
from nodes.engine import built_in
from server.web.log_buffer import Entry, LogBuffer
from server.web.site import Limits
from tests.web_site import asked, at_home, folders_in, png, put, told
from workflows.documents import examples
from workflows.editor.api_form import to_api

pytestmark = pytest.mark.anyio

NODES: dict[str, Any] = {"Spin": {"name": "Spin", "output": ["YARN"]}, "Half ä/b": {"name": "Half ä/b", "output": []}}


async def nodes() -> dict[str, Any]:
    return NODES


async def real_nodes() -> dict[str, Any]:
    return await asyncio.to_thread(object_info, built_in(), folders_in(Path("nowhere")))


async def devices() -> Sequence[dict[str, Any]]:
    return [{"name": "cpu", "type": "cpu", "index": 0, "vram_total": 1, "vram_free": 1}]


async def test_system_stats_tell_versions_memory_and_devices(tmp_path: Path):
    async with at_home(tmp_path, device_stats=devices, arguments=("latentloom", "serve", "--port")) as client:
        stats = await asked(client, "/system_stats")
    assert stats["devices"] == await devices()
    system = stats["system"]
    assert system["ram_total"] >= system["ram_free"] > 0
    assert system["pytorch_version"][0].isdigit()
    assert system["argv"] == ["latentloom", "serve", "--port"]
    assert {"os", "comfyui_version", "python_version", "embedded_python"} <= system.keys()
    assert str(tmp_path) not in json.dumps(stats)


async def test_features_tell_the_limit_of_uploads_and_what_the_site_adds(tmp_path: Path):
    async with at_home(tmp_path, limits=Limits(upload_bytes=5), features={"jobs": True}) as client:
        assert await asked(client, "/api/features") == {
            "supports_preview_metadata": True,
            "max_upload_size": 5,
            "jobs": True,
        }


async def test_extensions_are_those_of_the_site(tmp_path: Path):
    async with at_home(tmp_path, extensions=["/extensions/core/a.js"]) as client:
        assert await asked(client, "/extensions") == ["/extensions/core/a.js"]


@pytest.mark.parametrize("path", ["/i18n", "/node_replacements", "/global_subgraphs"])
async def test_what_there_is_none_of_is_empty(tmp_path: Path, path: str):
    async with at_home(tmp_path) as client:
        assert await asked(client, path) == {}


async def test_users_are_told_of_themselves_alone(tmp_path: Path):
    async with at_home(tmp_path) as client:
        assert await asked(client, "/users") == {"storage": "server", "migrated": True}
        status, body = await told(client, "POST", "/users", json={"username": "Ann"})
        assert (status, "latentloom keys" in body["error"]) == (400, True)


async def test_all_nodes_are_described_packed_and_plain(tmp_path: Path):
    async with at_home(tmp_path, describe_nodes=nodes) as client:
        assert await asked(client, "/object_info") == NODES
        async with client.get("/object_info", auto_decompress=False, headers={"Accept-Encoding": "gzip"}) as packed:
            assert packed.headers["Content-Encoding"] == "gzip"
            assert json.loads(gzip.decompress(await packed.read())) == NODES
        async with client.get("/object_info", headers={"Accept-Encoding": "identity"}) as plain:
            assert "Content-Encoding" not in plain.headers
            assert await plain.json() == NODES


async def test_nodes_that_are_known_are_not_sent_again(tmp_path: Path):
    described: dict[str, Any] = dict(NODES)

    async def now() -> dict[str, Any]:
        return dict(described)

    async with at_home(tmp_path, describe_nodes=now) as client:
        async with client.get("/object_info") as first:
            etag = first.headers["ETag"]
        async with client.get("/object_info", headers={"If-None-Match": etag}) as again:
            assert (again.status, await again.read()) == (304, b"")
        described["New"] = {"name": "New"}
        async with client.get("/object_info", headers={"If-None-Match": etag}) as changed:
            assert (changed.status, "New" in await changed.json()) == (200, True)


async def test_one_node_is_described_by_its_class(tmp_path: Path):
    async with at_home(tmp_path, describe_nodes=nodes) as client:
        assert await asked(client, "/object_info/Spin") == {"Spin": NODES["Spin"]}
        assert await asked(client, "/api/object_info/Half%20%C3%A4%2Fb") == {"Half ä/b": NODES["Half ä/b"]}
        assert await asked(client, "/object_info/Missing") == {}


async def test_every_example_is_a_template_that_an_editor_sends_back_as_it_was(tmp_path: Path):
    from workflows.documents import read_document

    infos = await real_nodes()
    async with at_home(tmp_path, describe_nodes=real_nodes) as client:
        assert await asked(client, "/workflow_templates") == {"latentloom": examples()}
        for name in examples():
            drawn = await asked(client, f"/api/workflow_templates/latentloom/{name}.json")
            converted = read(to_api(drawn, infos).document)
            original = read_document(name, lambda: infos).workflow
            assert {node_id: node.class_type for node_id, node in converted.items()} == {
                node_id: node.class_type for node_id, node in original.items()
            }


async def test_a_template_that_is_none_is_not_found(tmp_path: Path):
    async with at_home(tmp_path, describe_nodes=nodes) as client:
        for name in ("missing", "..%2Fexamples", "%2Fetc%2Fpasswd", "text_to_image"):
            status, _ = await told(client, "GET", f"/workflow_templates/latentloom/{name}.json")
            assert status == 404, name
        assert (await told(client, "GET", "/workflow_templates/latentloom/..%2Fpictures%2Fsteps.jpg"))[0] == 404


async def test_a_template_shows_its_picture_if_it_has_one(tmp_path: Path):
    async with at_home(tmp_path) as client:
        for name in ("steps", "text_to_image"):
            async with client.get(f"/workflow_templates/latentloom/{name}.jpg") as answer:
                assert (answer.status, answer.content_type) == (200, "image/jpeg")
        assert (await told(client, "GET", "/workflow_templates/latentloom/missing.jpg"))[0] == 404


def logger_with(buffer: LogBuffer) -> logging.Logger:
    logger = logging.Logger("test")
    logger.addHandler(buffer)
    return logger


async def test_the_log_is_shown_in_both_forms(tmp_path: Path):
    buffer = LogBuffer()
    async with at_home(tmp_path, log=buffer) as client:
        for number in range(400):
            logger_with(buffer).warning("line %d", number)
        text = await asked(client, "/internal/logs")
        assert text.endswith("line 399\n")
        raw = await asked(client, "/internal/logs/raw")
        assert [entry["m"] for entry in raw["entries"]] == [f"line {number}\n" for number in range(100, 400)]
        assert raw["size"].keys() == {"cols", "rows"}
        assert (await told(client, "GET", "/api/internal/logs"))[0] == 404


async def test_whoever_follows_the_log_is_told(tmp_path: Path):
    heard: list[tuple[str, str]] = []

    def tell(client_id: str, entries: Sequence[Entry]) -> None:
        heard.extend((client_id, entry.m) for entry in entries)

    buffer = LogBuffer(tell)
    async with at_home(tmp_path, log=buffer) as client:
        path = "/internal/logs/subscribe"
        assert (await told(client, "PATCH", path, json={"clientId": "x", "enabled": True}))[0] == 200
        logger_with(buffer).warning("one")
        assert (await told(client, "PATCH", path, json={"clientId": "x", "enabled": False}))[0] == 200
        logger_with(buffer).warning("two")
        assert heard == [("x", "one\n")]
        assert (await told(client, "PATCH", path, json={"clientId": 5}))[0] == 400


async def test_the_newest_files_of_a_folder_come_first(tmp_path: Path):
    import os

    for number, name in enumerate(("old.png", "new.png", "sub/x.png", ".hidden")):
        path = put(folders_in(tmp_path).output / name, png())
        os.utime(path, (number, number))
    async with at_home(tmp_path) as client:
        assert await asked(client, "/internal/files/output") == ["new.png", "old.png"]
        assert await asked(client, "/internal/files/temp") == []
        assert await told(client, "GET", "/internal/files/secret") == (400, {"error": "Invalid directory type"})
