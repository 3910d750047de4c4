"""A graph editor's files: those of its folder and no others, to whoever may come in."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from server.web import frontend
from server.web.frontend import Frontend, NoFrontend
from server.web.routes.frontend import ROUTES, SCRIPT
from tests.web_site import ANN, Client, asked, bearer, folders_in, locked, put, served, site_in, told

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def editing(folder: Path, **parts: Any) -> AsyncGenerator[Client]:
    """A client of a site with an editor of three files, beside a file that is none of its."""
    static = folder / "package" / "static"
    put(static / "index.html", "<title>editor</title>")
    put(static / "assets" / "main.js", "start()")
    put(static / "fonts" / "text.woff2")
    put(folder / "package" / "secret.js", "secret()")
    async with served(site_in(folder, **parts), ROUTES, {Frontend: Frontend(static)}) as client:
        yield client


async def test_files_are_sent_as_what_they_are(tmp_path: Path):
    types = {"/": "text/html", "/assets/main.js": "text/javascript", "/fonts/text.woff2": "font/woff2"}
    async with editing(tmp_path) as client:
        for path, media_type in {**types, SCRIPT: "text/javascript"}.items():
            async with client.get(path) as answer:
                assert (answer.status, answer.content_type) == (200, media_type), path


async def test_the_editor_may_ask_this_server_alone(tmp_path: Path):
    async with editing(tmp_path) as client, client.get("/") as answer:
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cache-Control"] == "no-cache"


async def test_what_the_protocol_has_stays_in_front_of_the_editor(tmp_path: Path):
    put(tmp_path / "package" / "static" / "features", "not this one")
    async with editing(tmp_path) as client:
        assert (await asked(client, "/features"))["supports_preview_metadata"] is True


@pytest.mark.parametrize(
    "path", ["/missing.js", "/assets", "/api/missing", "/..%2Fsecret.js", "/assets/..%2F..%2Fsecret.js"]
)
async def test_nothing_else_is_sent(tmp_path: Path, path: str):
    async with editing(tmp_path) as client:
        status, body = await told(client, "GET", path)
        assert status in (403, 404) and "secret()" not in str(body)


async def test_a_link_does_not_lead_out_of_the_folder(tmp_path: Path):
    async with editing(tmp_path) as client:
        (tmp_path / "package" / "static" / "link.js").symlink_to(tmp_path / "package" / "secret.js")
        assert (await told(client, "GET", "/link.js"))[0] == 403


async def test_without_a_key_nothing_of_the_editor_is_sent(tmp_path: Path):
    async with editing(tmp_path, door=locked()) as client:
        for route in ROUTES:
            path = route.path.replace("{file:.+}", "assets/main.js")
            assert (await told(client, "GET", path))[0] == 401, path
            assert (await told(client, "GET", path, headers=bearer(ANN)))[0] == 200, path


async def test_an_owner_has_a_style_sheet_of_their_own(tmp_path: Path):
    put(folders_in(tmp_path).of("ann").user / "user.css", "body { color: red }")
    path, keys = "/api/userdata/user.css", bearer(ANN)
    async with editing(tmp_path, door=locked()) as client, client.get(path, headers=keys) as answer:
        assert (answer.content_type, await answer.text()) == ("text/css", "body { color: red }")
    async with editing(tmp_path) as client, client.get(path) as answer:
        assert (answer.content_type, await answer.text()) == ("text/css", "")


def test_an_editor_that_is_not_installed_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(frontend, "PACKAGE", "no_such_package")
    with pytest.raises(NoFrontend, match=r"pip install \"latentloom\[comfyui\]\""):
        Frontend.installed()


def test_a_folder_without_an_editor_is_refused(tmp_path: Path):
    with pytest.raises(NoFrontend, match=r"no index\.html"):
        Frontend.built(tmp_path)
    put(tmp_path / "index.html")
    assert Frontend.built(tmp_path).folder == tmp_path
