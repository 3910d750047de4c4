"""The document that describes the site, and the page made of it."""

import re
from pathlib import Path
from typing import Annotated, Any, cast

import pytest
from aiohttp import web
from pydantic import BaseModel, Field

from server.web.endpoint import Gives, endpoint_of, get, post
from tests.web_site import asked, at_home, served, site_in

pytestmark = pytest.mark.anyio

REFERENCE = re.compile(r"#/components/schemas/(.+)")


async def test_every_route_is_described_with_what_it_takes_and_gives(tmp_path: Path):
    async with at_home(tmp_path) as client:
        document = await asked(client, "/openapi.json")
        assert document["openapi"] == "3.1.0"
        endpoints = {endpoint_of(route.handler) for route in client.app.router.routes()}
        assert None not in endpoints
        described = [(method, path) for path, methods in document["paths"].items() for method in methods]
        assert len(described) == len(endpoints) > 40
        for path, methods in document["paths"].items():
            in_path = {*re.findall(r"\{(\w+)\}", path)}
            for operation in methods.values():
                assert operation["summary"].endswith(".")
                assert {each["name"] for each in operation["parameters"] if each["in"] == "path"} == in_path
                assert {"400", "401", "403", "429"} <= operation["responses"].keys()


async def test_what_the_document_refers_to_is_in_it(tmp_path: Path):
    async with at_home(tmp_path) as client:
        document = await asked(client, "/openapi.json")
    found = {*references(document)}
    assert found
    assert found <= document["components"]["schemas"].keys()
    ids = [each["operationId"] for methods in document["paths"].values() for each in methods.values()]
    assert len(ids) == len({*ids})


def references(part: Any) -> list[str]:
    """The names that a part of a document refers to."""
    if isinstance(part, dict):
        values = cast("dict[str, Any]", part)
        own = REFERENCE.fullmatch(str(values.get("$ref", "")))
        return [*([own[1]] if own else []), *(name for value in values.values() for name in references(value))]
    return [name for value in cast("list[Any]", part) for name in references(value)] if isinstance(part, list) else []


class Thread(BaseModel):
    """What yarn is made of."""

    length: Annotated[int, Field(ge=1, description="In metres.")]


class Query(BaseModel):
    colour: Annotated[str, Field(description="Of the yarn.")]
    soft: bool = False


async def spin(query: Query, body: Thread) -> list[Thread]:
    """Spin."""
    return [body]


async def show(yarn: str) -> Annotated[web.Response, Gives("image/png")]:
    """Show yarn."""
    return web.Response(text=yarn)


async def test_a_route_is_described_by_the_models_that_check_it(tmp_path: Path):
    routes = [post("/spin", spin, need="admin"), get("/yarn/{yarn:[a-z]+}", show, key_in_url=True)]
    async with served(site_in(tmp_path), routes) as client:
        document = await asked(client, "/openapi.json")
    operation = document["paths"]["/spin"]["post"]
    thread = {"$ref": "#/components/schemas/Thread"}
    assert operation["requestBody"] == {"required": True, "content": {"application/json": {"schema": thread}}}
    assert operation["responses"]["200"]["content"]["application/json"]["schema"]["items"] == thread
    colour, soft = operation["parameters"]
    assert colour == {
        "name": "colour",
        "in": "query",
        "required": True,
        "description": "Of the yarn.",
        "schema": {"type": "string"},
    }
    assert (soft["required"], soft["schema"]) == (False, {"type": "boolean", "default": False})
    assert operation["security"][0] == {"bearer": ["admin"]}
    length = document["components"]["schemas"]["Thread"]["properties"]["length"]
    assert (length["minimum"], length["description"]) == (1, "In metres.")
    shown = document["paths"]["/yarn/{yarn}"]["get"]
    assert shown["responses"]["200"]["content"].keys() == {"image/png"}
    assert {"url": ["read"]} in shown["security"]


async def test_a_form_is_described_with_its_file(tmp_path: Path):
    async with at_home(tmp_path) as client:
        document = await asked(client, "/openapi.json")
    content = document["paths"]["/upload/image"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    form = document["components"]["schemas"][content["$ref"].rpartition("/")[2]]
    assert form["properties"]["image"]["format"] == "binary"
    assert form["required"] == ["image"]


async def test_what_the_server_sends_itself_is_described(tmp_path: Path):
    async with at_home(tmp_path) as client:
        document = await asked(client, "/openapi.json")
        async with client.get("/docs") as answer:
            page = await answer.text()
    told = document["webhooks"]["job"]["post"]
    assert {each["name"] for each in told["parameters"]} == {"webhook-id", "webhook-timestamp", "webhook-signature"}
    model = told["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert document["components"]["schemas"][model]["required"] == ["type", "timestamp", "data"]
    assert "<h2>Webhooks</h2>" in page and "HMAC-SHA256" in page


async def test_the_page_shows_every_path_and_loads_nothing(tmp_path: Path):
    async with at_home(tmp_path) as client:
        document = await asked(client, "/openapi.json")
        async with client.get("/docs") as answer:
            page = await answer.text()
            policy = answer.headers["Content-Security-Policy"]
    assert all(f"<code>{path}</code>" in page for path in document["paths"])
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert not re.search(r"<script|<link|<img|<iframe|\son\w+=|url\(|@import|style=", page)
    assert page.count("<details>") == page.count("</details>") > 60


async def test_what_a_page_is_made_of_cannot_become_part_of_it(tmp_path: Path):
    async def sly() -> str:
        """<script>alert(1)</script>"""
        return ""

    async with served(site_in(tmp_path), [get("/sly", sly)]) as client, client.get("/docs") as answer:
        assert "<script" not in await answer.text()
