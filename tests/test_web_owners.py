"""A whole server that asks for keys: what is closed without one, what scopes allow, and who sees what."""

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSCloseCode

from server.database.api_keys import ApiKeys, Scope
from server.database.database import Database
from server.web.options import WebOptions
from server.web.routes import websocket
from tests.servers import PATIENCE, Client, serving
from tests.web_site import bearer, form, picture, png, told
from tests.workers import alone, chain, use

pytestmark = pytest.mark.anyio

PUBLIC = {"/health", "/ready", "/login", "/logout"}
"""What anybody may ask for, with and without `/api`."""
READING = {("GET", "/jobs"), ("GET", "/history"), ("GET", "/queue"), ("GET", "/object_info"), ("GET", "/features")}
SUBMITTING = {("POST", "/validate"), ("POST", "/interrupt"), ("POST", "/jobs/cancel"), ("POST", "/settings")}
ADMINISTRATING = {("POST", "/queue/pause"), ("POST", "/queue/resume"), ("POST", "/free"), ("GET", "/internal/logs")}
COPY = {"1": use("LoadImage", image="hers.png"), "2": use("SaveImage", images=["1", 0], filename_prefix="copy")}


@dataclass
class Guarded:
    """A server that asks for keys, which are made beside it as by `latentloom keys`."""

    client: Client
    keys: ApiKeys

    async def key(self, owner: str, *scopes: Scope) -> dict[str, Any]:
        """What to send with a request to say a new key."""
        new = await self.keys.create(owner, scopes or ("submit", "read"))
        return {"headers": bearer(new.text)}

    async def status(self, method: str, path: str, **request: Any) -> int:
        return (await told(self.client.http, method, path, allow_redirects=False, **request))[0]

    async def get(self, path: str, **request: Any) -> Any:
        status, body = await told(self.client.http, "GET", path, **request)
        assert status == 200, body
        return body


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Guarded]:
    data = tmp_path_factory.mktemp("guarded")
    database = await Database.open(data / "jobs.sqlite3")
    keys = ApiKeys(database)
    await keys.create("root", ["admin"])
    web = WebOptions(input_directory=data / "elsewhere")
    async with serving(data, web=web) as client:
        yield Guarded(client, keys)
    await database.close()


async def test_every_route_is_closed_without_a_key_but_a_few(guarded: Guarded):
    http = guarded.client.http
    routes = {(route.method, route.resource.canonical) for route in http.app.router.routes() if route.resource}
    assert {("POST", "/prompt"), ("GET", "/ws"), ("GET", "/api/jobs/{job_id}"), ("POST", "/queue/pause")} <= routes
    for method, path in sorted(routes):
        if path.removeprefix("/api") not in PUBLIC:
            said = path.replace("{", "").replace("}", "")
            assert await guarded.status(method, said) in (401, 403), (method, path)
    assert await guarded.status("GET", "/nothing/here") == 401


async def test_a_key_allows_what_its_scopes_say_and_nothing_else(guarded: Guarded):
    tried = sorted(READING | SUBMITTING | ADMINISTRATING)
    allowed: dict[str, set[tuple[str, str]]] = {}
    scopes: tuple[Scope, ...] = ("read", "submit", "admin")
    for scope in scopes:
        key = await guarded.key("ann", scope)
        answers = {
            each: await guarded.status(*each, **key, data=b"{}" if each[0] == "POST" else None) for each in tried
        }
        assert {*answers.values()} <= {200, 400, 403}
        allowed[scope] = {each for each, status in answers.items() if status != 403}
    assert allowed == {"read": READING, "submit": SUBMITTING, "admin": READING | SUBMITTING | ADMINISTRATING}


async def test_a_reading_key_cannot_submit(guarded: Guarded):
    key = await guarded.key("ann", "read")
    bodies: dict[str, Any] = {"/prompt": {"prompt": chain()}, "/batch": {"prompt": chain(), "sets": [{}]}}
    for path, body in bodies.items():
        status, answer = await told(guarded.client.http, "POST", path, json=body, **key)
        assert status == 403
        assert "'submit'" in answer["error"]["message"]


async def test_jobs_files_and_events_of_another_owner_are_not_there(guarded: Guarded):
    http, ann, bob = guarded.client.http, await guarded.key("ann"), await guarded.key("bob")
    upload = form("hers.png", png(colour=(1, 2, 3)))
    upload["headers"] |= ann["headers"]
    assert (await told(http, "POST", "/upload/image", **upload))[0] == 200
    body = {"prompt": COPY, "client_id": "same"}
    _, answer = await told(http, "POST", f"/prompt?wait={PATIENCE}", json=body, **ann)
    (file,) = answer["outputs"]["2"]["images"]
    view, job_id = f"/view?filename={file['filename']}&type=output", answer["prompt_id"]
    async with http.get(view, **ann) as shown:
        assert picture(await shown.read()).getpixel((0, 0)) == (1, 2, 3)
    assert await guarded.status("GET", view, **bob) == 404
    assert [job["id"] for job in (await guarded.get("/jobs", **ann))["jobs"]] == [job_id]
    assert (await guarded.get("/jobs", **bob))["jobs"] == []
    assert await guarded.get(f"/history/{job_id}", **bob) == {} == await guarded.get("/history", **bob)
    assert (await guarded.get(f"/jobs/{job_id}/events", **ann))["events"]
    for path in (f"/jobs/{job_id}", f"/jobs/{job_id}/events"):
        assert await guarded.status("GET", path, **bob) == 404
    assert await guarded.status("POST", f"/jobs/{job_id}/retry", **bob) == 404
    status, refused = await told(http, "POST", "/prompt", json=body, **bob)
    assert (status, refused["node_errors"]["1"]["errors"][0]["type"]) == (400, "value_not_in_list")


async def test_what_can_be_chosen_from_is_the_owners_own(guarded: Guarded):
    ann, bob = await guarded.key("carol"), await guarded.key("dave")
    upload = form("carols.png")
    upload["headers"] |= ann["headers"]
    await told(guarded.client.http, "POST", "/upload/image", **upload)
    for path in ("/object_info", "/object_info/LoadImage"):
        seen = [
            "carols.png" in (await guarded.get(path, **key))["LoadImage"]["input"]["required"]["image"][0]
            for key in (ann, bob)
        ]
        assert seen == [True, False]


async def test_nobody_hears_of_the_jobs_of_another_owner(guarded: Guarded):
    ann, bob = await guarded.key("ann"), await guarded.key("bob")
    http = guarded.client.http
    async with http.ws_connect("/ws?clientId=same&jobs=all", headers=bob["headers"]) as socket:
        await socket.receive_json()
        await told(http, "POST", f"/prompt?wait={PATIENCE}", json={"prompt": chain(), "client_id": "same"}, **ann)
        status, answer = await told(http, "POST", "/prompt", json={"prompt": chain(), "client_id": "same"}, **bob)
        assert status == 200
        heard: list[Any] = []
        while not heard or heard[-1]["type"] != "executing" or heard[-1]["data"]["node"] is not None:
            heard.append(await socket.receive_json(timeout=PATIENCE))
    assert {message["data"].get("prompt_id", answer["prompt_id"]) for message in heard} == {answer["prompt_id"]}


async def test_a_revoked_key_opens_nothing_from_then_on(guarded: Guarded, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(websocket, "KEY_SECONDS", 0.05)
    new = await guarded.keys.create("ann", ["read"])
    key: dict[str, Any] = {"headers": bearer(new.text)}
    async with guarded.client.http.ws_connect("/ws", headers=bearer(new.text)) as socket:
        assert (await socket.receive_json())["type"] == "status"
        await asyncio.sleep(0.2)
        assert await guarded.status("GET", "/jobs", **key) == 200
        assert not socket.closed
        await guarded.keys.revoke(new.key.id)
        assert await guarded.status("GET", "/jobs", **key) == 401
        async with asyncio.timeout(PATIENCE):
            async for _ in socket:
                pass
        assert socket.close_code == WSCloseCode.POLICY_VIOLATION


async def test_a_job_finds_and_leaves_files_where_the_server_was_told_to(tmp_path: Path):
    web = WebOptions(input_directory=tmp_path / "in", output_directory=tmp_path / "out", temp_directory=tmp_path / "t")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "hers.png").write_bytes(png())
    async with serving(tmp_path / "data", web=web) as client:
        choices = (await client.get("/object_info/LoadImage"))["LoadImage"]["input"]["required"]["image"][0]
        assert "hers.png" in choices
        assert (await client.run(COPY))["status"] == "completed"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["copy_00001_.png"]


async def test_an_owner_may_have_only_so_many_jobs_and_disturbs_no_other_owner(tmp_path: Path):
    keys = ("ann=ann-has-this-long-key", "bob=bob-has-this-long-key")
    async with serving(tmp_path, web=WebOptions.model_validate({"api_key": keys}), most_unfinished=2) as client:
        ann, bob = (bearer(key.partition("=")[2]) for key in keys)
        body = {"prompt": alone("Wait")}
        for _ in range(2):
            assert (await told(client.http, "POST", "/prompt", json=body, headers=ann))[0] == 200
        for path, sent in {"/prompt": body, "/batch": {**body, "sets": [dict[str, Any]()]}}.items():
            async with client.http.post(path, json=sent, headers=ann) as answer:
                assert (answer.status, answer.headers["Retry-After"]) == (429, "5")
                refused = await answer.json()
            assert refused["error"]["type"] == "too_many_jobs"
        (status, other) = await told(client.http, "POST", "/prompt", json=body, headers=bob)
        assert status == 200
        await told(client.http, "POST", "/queue", json={"clear": True}, headers=ann)
        await told(client.http, "POST", "/interrupt", headers=ann)
        assert (await told(client.http, "POST", f"/jobs/{other['prompt_id']}/cancel", headers=bob))[0] == 200


async def test_no_answer_says_where_things_are_on_the_servers_disk(tmp_path: Path):
    web = WebOptions(input_directory=tmp_path / "elsewhere")
    async with serving(tmp_path / "data", web=web) as client, client.listening() as listener:
        refused = await client.post("/prompt", {"prompt": COPY}, expected=400)
        validated = await client.post("/validate", {"prompt": COPY})
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "hers.png").write_bytes(b"no picture")
        failed = await client.run(COPY)
        told = [await listener.job(failed["prompt_id"]), await client.get(f"/jobs/{failed['prompt_id']}")]
        outside = {**COPY, "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "../a"}}}
        (tmp_path / "elsewhere" / "hers.png").write_bytes(png())
        kept_inside = await client.run(outside)
        history = await client.get("/history")
    said = json.dumps([refused, validated, failed, told, kept_inside, history])
    assert "no picture of this name in input or examples" in said
    assert "The picture input/hers.png cannot be used" in said
    assert "only saved inside output" in said
    assert str(tmp_path) not in said and str(Path.cwd()) not in said
