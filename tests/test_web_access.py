"""Who may come in, with which key, to what."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from server.web.access import COOKIE, Caller, Door
from server.web.application import make_application
from server.web.endpoint import get, post
from server.web.keys import StatedKey, StatedKeys
from server.web.problems import Refused
from tests.web_site import (
    ANN,
    BOB,
    Client,
    HandClock,
    asked,
    at_home,
    bearer,
    folders_in,
    form,
    locked,
    png,
    put,
    served,
    site_in,
    told,
)

pytestmark = pytest.mark.anyio

PUBLIC = {("GET", "/login"), ("HEAD", "/login"), ("POST", "/login"), ("POST", "/logout")}
WRONG = "this-is-nobodys-key-at-all"


async def status(client: Client, path: str = "/features", method: str = "GET", **request: Any) -> int:
    return (await told(client, method, path, allow_redirects=False, **request))[0]


async def test_every_route_is_closed_without_a_key_but_those_for_logging_in(tmp_path: Path):
    site = site_in(tmp_path, door=locked(failures=HandClock().rate(1e6, 1)))
    routes = [(route.method, route.resource) for route in make_application(site).router.routes()]
    assert len(routes) > 100
    async with served(site) as client:
        for method, resource in routes:
            assert resource is not None
            path = resource.canonical.replace("{", "").replace("}", "")
            if (method, path) in PUBLIC:
                continue
            for headers in ({}, bearer(WRONG), {"X-API-Key": ""}, {"Cookie": f"{COOKIE}={WRONG}"}):
                assert await status(client, path, method, headers=headers) == 401, (method, path)
                assert await status(client, f"{path}?key={WRONG}", method, headers=headers) == 401, (method, path)
        assert await status(client, "/nothing/here") == 401


async def test_a_key_is_taken_from_four_places(tmp_path: Path):
    put(folders_in(tmp_path).of("ann").output / "a.png", png())
    async with at_home(tmp_path, door=locked()) as client:
        assert await status(client, headers=bearer(ANN)) == 200
        assert await status(client, headers={"Authorization": f"bearer  {ANN} "}) == 200
        assert await status(client, headers={"X-API-Key": ANN}) == 200
        assert await status(client, headers={"Cookie": f"{COOKIE}={ANN}"}) == 200
        assert await status(client, f"/view?filename=a.png&key={ANN}") == 200


async def test_a_key_in_the_url_opens_only_what_a_page_cannot_ask_for_otherwise(tmp_path: Path):
    async with at_home(tmp_path, door=locked()) as client:
        assert await status(client, f"/features?key={ANN}") == 401
        assert await status(client, f"/settings?key={ANN}", "POST", json={}) == 401


async def test_a_server_without_keys_asks_for_none(tmp_path: Path):
    async with at_home(tmp_path) as client:
        assert await status(client) == 200
        assert await status(client, headers=bearer(WRONG)) == 200


async def test_a_refusal_says_how_a_key_is_sent(tmp_path: Path):
    async with at_home(tmp_path, door=locked()) as client, client.get("/features") as answer:
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert "X-API-Key" in (await answer.json())["error"]


class Ring:
    """Keys with scopes, as a database knows them."""

    def __init__(self, **keys: StatedKey) -> None:
        self.keys = keys

    async def verify(self, text: str) -> StatedKey | None:
        return self.keys.get(text)


async def test_a_key_opens_what_its_scopes_say(tmp_path: Path):
    ring = Ring(
        reading=StatedKey("ann", b"", frozenset({"read"})),
        submitting=StatedKey("ann", b"", frozenset({"submit"})),
        administrating=StatedKey("ann", b"", frozenset({"admin"})),
    )
    tried = {"read": ("GET", "/features"), "submit": ("POST", "/settings"), "admin": ("GET", "/internal/logs")}
    async with at_home(tmp_path, door=Door(rings=(ring,))) as client:
        opened = {
            key: [
                scope
                for scope, (method, path) in tried.items()
                if await status(client, path, method, headers=bearer(key), data=b"{}" if method == "POST" else None)
                == 200
            ]
            for key in ring.keys
        }
    assert opened == {"reading": ["read"], "submitting": ["submit"], "administrating": ["read", "submit", "admin"]}


async def test_keys_of_several_rings_open_the_same_door(tmp_path: Path):
    door = Door(rings=(StatedKeys([StatedKey.parse(f"ann={ANN}")]), StatedKeys([StatedKey.parse(f"bob={BOB}")])))
    async with at_home(tmp_path, door=door) as client:
        assert [await status(client, headers=bearer(key)) for key in (ANN, BOB, WRONG)] == [200, 200, 401]


async def test_a_handler_is_told_who_asks(tmp_path: Path):
    async def who(caller: Caller) -> str:
        return caller.owner

    async with served(site_in(tmp_path, door=locked()), [get("/who", who)]) as client:
        assert await asked(client, "/who", headers=bearer(ANN)) == "ann"
        assert await asked(client, "/api/who", headers=bearer(BOB)) == "bob"
    async with served(site_in(tmp_path), [get("/who", who)]) as client:
        assert await asked(client, "/who") == "local"


async def test_nobody_sees_or_changes_what_is_somebody_elses(tmp_path: Path):
    async with at_home(tmp_path, door=locked()) as client:
        ann: dict[str, Any] = {"headers": bearer(ANN)}
        bob: dict[str, Any] = {"headers": bearer(BOB)}
        upload = form("a.png", png())
        assert (
            await status(client, "/upload/image", "POST", data=upload["data"], headers=upload["headers"] | bearer(ANN))
            == 200
        )
        assert await status(client, "/userdata/a.txt", "POST", data=b"ann's", **ann) == 200
        assert await status(client, "/settings/a", "POST", data=b"1", **ann) == 200
        assert await status(client, "/view?filename=a.png&type=input", **ann) == 200
        assert await status(client, "/view?filename=a.png&type=input", **bob) == 404
        assert await status(client, "/userdata/a.txt", **bob) == 404
        assert await status(client, "/userdata/a.txt", "DELETE", **bob) == 404
        assert await asked(client, "/settings", **bob) == {}
        assert await asked(client, "/internal/files/input", **bob) == []
        assert await asked(client, "/settings", **ann) == {"a": 1}


async def test_owners_never_share_a_folder(tmp_path: Path):
    names = ["ann", "Ann", "ANN", "a nn", "a/nn", "a\\nn", "..", ".", "", "default", "é", "e", "\ud800", "a" * 1000]
    homes = [folders_in(tmp_path).of(name) for name in names]
    for kind in ("output", "uploads", "temporary", "user"):
        paths = [getattr(home, kind) for home in homes]
        assert len({str(path).lower() for path in paths}) == len(names)
        assert all(path.resolve().is_relative_to(tmp_path) and path.parent.parent != path for path in paths)
    # The folder of one may not lie in that of another either.
    users = [home.user for home in homes]
    assert all(user.parent == folders_in(tmp_path).users for user in users)


async def test_wrong_keys_are_refused_at_all_after_a_while(tmp_path: Path):
    clock = HandClock()
    async with at_home(tmp_path, door=locked(failures=clock.rate(burst=3, per_second=0.1))) as client:
        assert [await status(client, headers=bearer(f"{WRONG}{n}")) for n in range(5)] == [401, 401, 401, 429, 429]
        # Otherwise a guess would still be told by its success.
        async with client.get("/features", headers=bearer(ANN)) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (429, "11")
        clock.now += 10
        assert await status(client, headers=bearer(ANN)) == 200


class SlowRing:
    """Knows no key, and takes its time to say so."""

    async def verify(self, text: str) -> None:
        await asyncio.sleep(0)


async def test_many_guesses_at_once_are_paid_for_afterwards(tmp_path: Path):
    clock = HandClock()
    door = Door(rings=(SlowRing(),), failures=clock.rate(burst=3, per_second=1))
    guesses = [door.recognise(f"{WRONG}{number}", "somewhere") for number in range(100)]
    refused = await asyncio.gather(*guesses, return_exceptions=True)
    assert {error.status for error in refused if isinstance(error, Refused)} == {401}
    clock.now += 90
    with pytest.raises(Refused, match="too many"):
        await door.recognise(ANN, "somewhere")


async def test_a_page_that_keeps_asking_with_an_old_key_is_not_guessing(tmp_path: Path):
    clock = HandClock()
    async with at_home(tmp_path, door=locked(failures=clock.rate(burst=2, per_second=0.1))) as client:
        cookie = {"Cookie": f"{COOKIE}={WRONG}"}
        assert {await status(client, headers=cookie) for _ in range(10)} == {401}
        assert await status(client, headers=bearer(ANN)) == 200


async def test_more_requests_than_allowed_are_refused_for_a_while(tmp_path: Path):
    clock = HandClock()
    async with at_home(tmp_path, door=locked(requests=clock.rate(burst=3, per_second=1))) as client:
        assert [await status(client, headers=bearer(ANN)) for _ in range(4)] == [200, 200, 200, 429]
        assert await status(client, headers=bearer(BOB)) == 200
        clock.now += 2
        assert [await status(client, headers=bearer(ANN)) for _ in range(3)] == [200, 200, 429]


async def test_strangers_are_told_only_so_often_that_they_need_a_key(tmp_path: Path):
    clock = HandClock()
    async with at_home(tmp_path, door=locked(requests=clock.rate(burst=3, per_second=1))) as client:
        assert [await status(client) for _ in range(4)] == [401, 401, 401, 429]
        assert await status(client, headers=bearer(ANN)) == 200
        async with client.get("/features") as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (429, "2")
        clock.now += 1
        assert await status(client) == 401


# Logging in


async def test_a_person_without_a_key_is_sent_to_the_login_page_and_back(tmp_path: Path):
    async with at_home(tmp_path, door=locked()) as client:
        async with client.get("/docs?a=b&c", headers={"Accept": "text/html"}, allow_redirects=False) as answer:
            destination = URL(answer.headers["Location"])
            assert (answer.status, destination.path, destination.query) == (303, "/login", {"next": "/docs?a=b&c"})
        async with client.get("/login?next=%2Fdocs%3Fa%3Db") as answer:
            page = await answer.text()
            assert 'value="/docs?a=b"' in page
            assert "<script" not in page
        login: dict[str, Any] = {"data": {"key": ANN, "next": "/docs?a=b"}, "allow_redirects": False}
        async with client.post("/login", **login) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, "/docs?a=b")
            cookie = answer.headers["Set-Cookie"]
            assert all(part in cookie for part in ("HttpOnly", "SameSite=Lax", "Path=/"))
        async with client.get("/docs", headers={"Cookie": f"{COOKIE}={ANN}"}) as answer:
            assert answer.status == 200


async def test_a_wrong_key_is_told_on_the_page_and_counted(tmp_path: Path):
    clock = HandClock()
    async with at_home(tmp_path, door=locked(failures=clock.rate(burst=2, per_second=0.1))) as client:
        for key, expected in (("", 400), (f"{WRONG}1", 401), (f"{WRONG}2", 401), (ANN, 429)):
            async with client.post("/login", data={"key": key}, allow_redirects=False) as answer:
                assert (answer.status, "Set-Cookie" in answer.headers) == (expected, False)
                assert 'role="alert"' in await answer.text()


@pytest.mark.parametrize(
    "destination",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "javascript:alert(1)",
        "/\r\nX: y",
        "docs",
    ],
)
async def test_nobody_is_sent_to_another_site_after_logging_in(tmp_path: Path, destination: str):
    async with at_home(tmp_path, door=locked()) as client:
        login: dict[str, Any] = {"data": {"key": ANN, "next": destination}, "allow_redirects": False}
        async with client.post("/login", **login) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, "/")


async def test_what_a_page_is_told_cannot_become_part_of_it(tmp_path: Path):
    destination = {"next": '"><script>alert(1)</script>'}
    async with at_home(tmp_path, door=locked()) as client, client.get("/login", params=destination) as answer:
        assert "<script" not in await answer.text()
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")


async def test_logging_out_takes_the_cookie_back(tmp_path: Path):
    async with at_home(tmp_path, door=locked()) as client, client.post("/logout", allow_redirects=False) as answer:
        assert answer.status == 303
        assert f"{COOKIE}=" in answer.headers["Set-Cookie"]
        assert "Max-Age=0" in answer.headers["Set-Cookie"]


async def test_a_login_form_that_is_none_is_refused(tmp_path: Path):
    async with at_home(tmp_path, door=locked()) as client:
        for body in (b"", b"\xff\xfe", b"key=&" * 1000, b"&" * 10_000):
            assert await status(client, "/login", "POST", data=body) == 400
        assert await status(client, "/login", "POST", data=b"x" * 20_000) == 413


async def test_an_answer_for_one_owner_is_not_kept_for_others(tmp_path: Path):
    async def show() -> web.Response:
        return web.Response(body=png(), content_type="image/png")

    for door, expected in ((Door(), "public"), (locked(), "private")):
        site = site_in(tmp_path, door=door)
        async with served(site, [get("/a.png", show)]) as client, client.get("/a.png", headers=bearer(ANN)) as answer:
            assert answer.headers["Cache-Control"].startswith(expected)


async def test_a_route_that_says_nothing_of_keys_needs_one(tmp_path: Path):
    async def plain(request: web.Request) -> web.Response:
        return web.Response(text="here")

    routes = [web.get("/plain", plain), web.post("/plain", plain), post("/other", plain)]
    async with served(site_in(tmp_path, door=locked()), routes) as client:
        for method in ("GET", "POST"):
            assert await status(client, "/plain", method) == 401
            assert await status(client, "/api/plain", method, headers=bearer(ANN)) == 200
        assert await status(client, "/other", "POST") == 401
