"""Which names a site answers to, and which pages may use it."""

from pathlib import Path

import pytest
from aiohttp import web

from server.web.endpoint import get
from server.web.origins import Origins
from tests.web_site import ANN, at_home, bearer, folders_in, locked, put, served, site_in, told

pytestmark = pytest.mark.anyio

APP = "https://app.example"


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8188",
        "127.0.0.1:8188",
        "[::1]",
        "[::1]:8188",
        "192.168.1.5",
        "ui.localhost",
        "mine.example",
    ],
)
async def test_a_site_answers_to_its_own_names_and_to_addresses(tmp_path: Path, host: str):
    async with at_home(tmp_path, origins=Origins(names=frozenset({"mine.example"}))) as client:
        assert (await told(client, "GET", "/features", headers={"Host": host}))[0] == 200


@pytest.mark.parametrize("door", ["open", "locked"])
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8188",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "a@localhost",
        "",
        "a b",
        "[::1",
        "localhost:x",
    ],
)
async def test_a_name_that_somebody_made_point_here_is_refused(tmp_path: Path, host: str, door: str):
    parts = {} if door == "open" else {"door": locked()}
    async with at_home(tmp_path, **parts) as client:
        for method, path in (
            ("GET", "/features"),
            ("POST", "/settings"),
            ("GET", "/nothing"),
            ("OPTIONS", "/settings"),
        ):
            status, body = await told(client, method, path, headers={"Host": host, **bearer(ANN)})
            assert (status, "--allowed-host" in body["error"]) == (403, True)


async def test_any_name_will_do_where_that_is_wanted(tmp_path: Path):
    async with at_home(tmp_path, origins=Origins(names=frozenset({"*"}))) as client:
        assert (await told(client, "GET", "/features", headers={"Host": "any.example"}))[0] == 200


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost:8188", "http://localhost:8188", 200),
        ("LOCALHOST:8188", "http://localhost:8188", 200),
        ("localhost", "https://localhost", 200),
        ("localhost", "http://localhost:80", 200),
        ("localhost:443", "https://localhost", 200),
        ("192.168.1.5:8188", "http://192.168.1.5:8188", 200),
        ("[::1]:8188", "http://[::1]:8188", 200),
        ("localhost:8188", "http://localhost:3000", 403),
        ("localhost:8188", "http://localhost", 403),
        ("localhost:8188", "http://127.0.0.1:8188", 403),
        ("192.168.1.5:8188", "http://evil.example", 403),
        ("192.168.1.5:8188", "http://192.168.1.6:8188", 403),
        ("localhost:8188", "null", 403),
        ("localhost:8188", "", 403),
        ("localhost:8188", "file://", 403),
        ("localhost:8188", "chrome-extension://localhost:8188", 403),
    ],
)
async def test_only_pages_of_the_site_itself_may_use_it(tmp_path: Path, host: str, origin: str, status: int):
    async with at_home(tmp_path) as client:
        headers = {"Host": host, "Origin": origin}
        assert (await told(client, "POST", "/settings", data=b"{}", headers=headers))[0] == status
        assert (await told(client, "GET", "/features", headers=headers))[0] == status


async def test_a_page_that_may_not_use_it_changes_nothing(tmp_path: Path):
    async with at_home(tmp_path) as client:
        evil = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
        status, body = await told(client, "POST", "/settings", data=b'{"a": 1}', headers=evil)
        assert (status, "https://evil.example" in body["error"]) == (403, True)
        assert await told(client, "GET", "/settings") == (200, {})


async def test_a_websocket_of_another_site_is_refused(tmp_path: Path):
    async def talk(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close()
        return socket

    async with served(site_in(tmp_path), [get("/ws", talk)]) as client:
        async with client.ws_connect("/ws"):
            pass
        headers = {"Origin": "https://evil.example", "Upgrade": "websocket", "Connection": "Upgrade"}
        assert (await told(client, "GET", "/ws", headers=headers))[0] == 403


async def test_what_another_sites_page_embeds_is_refused_where_the_browser_tells(tmp_path: Path):
    put(folders_in(tmp_path).of("ann").output / "a.txt", "mine")
    embedded = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    async with at_home(tmp_path, door=locked()) as client:
        cookie = {"Cookie": f"latentloom_key={ANN}"}
        assert (await told(client, "GET", "/view?filename=a.txt", headers=embedded | cookie))[0] == 403
        # Who says the key itself is no victim of a page.
        assert (await told(client, "GET", f"/view?filename=a.txt&key={ANN}", headers=embedded))[0] == 200
        # A link to this site is no use of it by another.
        navigated = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        assert (await told(client, "GET", "/view?filename=a.txt", headers=navigated | cookie))[0] == 200


async def test_without_cors_no_other_site_is_told_anything(tmp_path: Path):
    async with at_home(tmp_path) as client, client.get("/features") as answer:
        assert not [name for name in answer.headers if name.startswith("Access-Control")]
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"


async def test_cors_for_everybody_comes_without_credentials(tmp_path: Path):
    origins = Origins(allowed=frozenset({"*"}))
    async with at_home(tmp_path, origins=origins) as client, client.get("/features", headers={"Origin": APP}) as answer:
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, "*")
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert "PATCH" in answer.headers["Access-Control-Allow-Methods"]


async def test_cors_for_one_site_is_for_that_alone(tmp_path: Path):
    async with at_home(tmp_path, origins=Origins(allowed=frozenset({APP}))) as client:
        async with client.get("/features", headers={"Origin": APP}) as answer:
            assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, APP)
            assert answer.headers["Access-Control-Allow-Credentials"] == "true"
            assert "Origin" in answer.headers["Vary"]
        async with client.get("/features", headers={"Origin": "https://evil.example"}) as answer:
            assert answer.status == 403
            assert "Access-Control-Allow-Origin" not in answer.headers
        async with client.get("/features") as answer:
            assert (answer.status, answer.headers["Vary"]) == (200, "Origin")


async def test_a_preflight_is_answered_without_a_key_and_does_nothing(tmp_path: Path):
    origins = Origins(allowed=frozenset({APP}))
    async with at_home(tmp_path, origins=origins, door=locked()) as client:
        headers = {"Origin": APP, "Access-Control-Request-Method": "POST"}
        for path in ("/settings", "/api/settings", "/nothing"):
            async with client.options(path, headers=headers) as answer:
                assert (answer.status, await answer.read()) == (200, b"")
                assert answer.headers["Access-Control-Allow-Origin"] == APP
                assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]


async def test_refusals_can_be_read_by_pages_that_may_use_the_site(tmp_path: Path):
    site = site_in(tmp_path, origins=Origins(allowed=frozenset({APP})), door=locked())
    async with served(site) as client, client.get("/features", headers={"Origin": APP}) as answer:
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (401, APP)
