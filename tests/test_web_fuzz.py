"""Whatever is sent to whatever route, a server tells what is wrong with it, and goes on."""

import asyncio
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.web.application import make_application
from server.web.endpoint import endpoint_of
from server.web.openapi import plain_path
from server.web.parameters import FormBody, Query
from server.web.site import Limits, Site
from tests.test_web_names import ATTACKS
from tests.web_site import Client, at_home, folders_in, form, png, put, site_in

texts = st.text(max_size=30) | st.sampled_from(ATTACKS) | st.sampled_from(["a.png", "sub", "true", "5", "-1", "loras"])
jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
bodies = st.binary(max_size=200) | jsons.map(lambda value: json.dumps(value).encode())


def routes_of(site: Site) -> list[tuple[str, str, list[str], list[str]]]:
    """Method and path of every route, and the names of what may be in its query and its form."""
    found: list[tuple[str, str, list[str], list[str]]] = []
    for route in make_application(site).router.routes():
        endpoint = endpoint_of(route.handler)
        if endpoint and route.resource and not route.resource.canonical.startswith("/api"):
            names = {
                type(each): [*each.annotation.model_fields]
                for each in endpoint.parameters
                if isinstance(each, Query | FormBody)
            }
            found.append((route.method, plain_path(endpoint.path), names.get(Query, []), names.get(FormBody, [])))
    return sorted(found)


class Fuzzed:
    """A site that takes one request after the other, on a loop of its own."""

    def __init__(self, runner: asyncio.Runner, client: Client) -> None:
        self.runner, self.client = runner, client

    def send(self, method: str, path: str, **request: Any) -> tuple[int, bytes]:
        return self.runner.run(self._send(method, path, **request))

    async def _send(self, method: str, path: str, **request: Any) -> tuple[int, bytes]:
        async with self.client.request(method, path, allow_redirects=False, **request) as answer:
            body = await answer.read()
            if answer.status >= 400 and method != "HEAD" and answer.content_type == "application/json":
                assert isinstance(json.loads(body)["error"], str)
            return answer.status, body


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Generator[Fuzzed]:
    """A site with a few files in it."""
    folder = tmp_path_factory.mktemp("fuzzed")
    folders = folders_in(folder)
    for place in (folders.output, folders.uploads, folders.temp, folders.user, folders.models("loras")):
        put(place / "a.png", png())
        put(place / "sub" / "a.txt")
    put(folder / "secret.txt", "a secret")
    with asyncio.Runner() as runner:
        site = at_home(folder, limits=Limits(upload_bytes=10_000, json_bytes=5_000, patience=1))
        client = runner.run(site.__aenter__())
        try:
            yield Fuzzed(runner, client)
        finally:
            runner.run(site.__aexit__(None, None, None))


ROUTES = routes_of(site_in(Path("nowhere")))
short = settings(max_examples=150, deadline=None)


@short
@given(route=st.sampled_from(ROUTES), parts=st.lists(texts, min_size=3, max_size=3), data=st.data())
def test_no_query_and_no_body_brings_a_server_down(
    fuzzed: Fuzzed, route: tuple[str, str, list[str], list[str]], parts: list[str], data: st.DataObject
):
    method, path, query, fields = route
    for part in parts:
        start, end = path.find("{"), path.find("}")
        if start >= 0:
            path = path[:start] + quote(part.encode(errors="surrogatepass"), safe="") + path[end + 1 :]
    said = data.draw(st.dictionaries(st.sampled_from(query) if query else texts, texts, max_size=4))
    pairs = "&".join(
        f"{quote(name.encode(errors='surrogatepass'))}={quote(value.encode(errors='surrogatepass'))}"
        for name, value in said.items()
    )
    request: dict[str, Any] = {}
    if fields and data.draw(st.booleans()):
        values = data.draw(st.dictionaries(st.sampled_from(fields), texts, max_size=4))
        values.pop("image", None)
        clean = {name: value.encode(errors="replace").decode() for name, value in values.items()}
        request = form(data.draw(texts).encode(errors="replace").decode(), data.draw(bodies) or png(), **clean)
    elif method not in ("GET", "HEAD"):
        request = {"data": data.draw(bodies)}
    status, body = fuzzed.send(method, f"{path}?{pairs}", **request)
    assert status < 500, (method, path, pairs, body)
    assert b"a secret" not in body
    assert b"Traceback" not in body


headers = st.dictionaries(
    st.sampled_from(
        ["Accept", "Accept-Encoding", "Authorization", "Cookie", "Content-Type", "If-None-Match", "If-Modified-Since"]
        + ["If-Range", "Range", "Origin", "Host", "Sec-Fetch-Site", "X-API-Key", "Comfy-User", "If-Match", "Expect"]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)
    | st.sampled_from(
        ["bytes=0-1", "bytes=-1", "bytes=5-2", "bytes=0-0,2-3", '"a"', 'W/"a", *', "multipart/form-data"]
    ),
    max_size=4,
)


@short
@given(route=st.sampled_from(ROUTES), said=headers, body=bodies)
def test_no_header_brings_a_server_down(
    fuzzed: Fuzzed, route: tuple[str, str, list[str], list[str]], said: dict[str, str], body: bytes
):
    method, path, _, _ = route
    path = path.replace("{", "").replace("}", "")
    request = {} if method in ("GET", "HEAD") else {"data": body}
    for target in (path, "/view?filename=a.png"):
        status, answer = fuzzed.send(method, target, headers=said, **request)
        assert status < 500, (method, target, said, answer)


@short
@given(body=st.binary(max_size=400), boundary=st.sampled_from(["limit", "x", "", "a b", "-" * 80]))
def test_no_form_brings_a_server_down(fuzzed: Fuzzed, body: bytes, boundary: str):
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    for data in (body, f"--{boundary}\r\nContent-Disposition: form-data; name=".encode() + body):
        status, answer = fuzzed.send("POST", "/upload/image", data=data, headers=kind)
        assert status < 500, answer


@short
@given(path=st.text(max_size=40) | st.lists(texts, max_size=4).map("/".join))
def test_no_path_brings_a_server_down(fuzzed: Fuzzed, path: str):
    for method in ("GET", "POST", "DELETE", "PATCH", "PUT", "OPTIONS"):
        status, body = fuzzed.send(method, "/" + quote(path.encode(errors="surrogatepass"), safe="/").lstrip("/"))
        assert status < 500, (method, path, body)
