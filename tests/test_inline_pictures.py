"""Pictures that come along with a workflow, and pictures as the answer: no upload before, no download after."""

import base64
import io
import json
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import FormData

from server.web.made import wanted_picture
from server.web.options import WebOptions
from tests.servers import PATIENCE, Client, serving
from tests.web_site import picture, png, told
from tests.workers import chain, use

pytestmark = pytest.mark.anyio

RED, BLUE = png(colour=(250, 0, 0)), png(colour=(0, 0, 250))
COPY = {"1": use("LoadImage", image="a.png"), "2": use("SaveImage", images=["1", 0], filename_prefix="copy")}
SHOWN = {"1": use("LoadImage", image="a.png"), "2": use("PreviewImage", images=["1", 0])}


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def sent(files: Mapping[str, bytes], document: Any) -> FormData:
    """A form with the document and files."""
    form = FormData()
    form.add_field("prompt", json.dumps(document))
    for name, content in files.items():
        form.add_field("files", io.BytesIO(content), filename=name, content_type="image/png")
    return form


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Client]:
    async with serving(tmp_path_factory.mktemp("inline")) as client:
        yield client


async def made(client: Client, **request: Any) -> Any:
    """The colour of the picture that the answer holds."""
    status, answer = await told(client.http, "POST", f"/prompt?wait={PATIENCE}&inline=1", **request)
    assert (status, answer["status"]) == (200, "completed"), answer
    (file,) = answer["outputs"]["2"]["images"]
    assert file["media_type"] == "image/png"
    return picture(base64.b64decode(file["data"])).getpixel((0, 0))


@pytest.mark.parametrize("before", ["", "data:image/png;base64,", "data:;base64,\n"])
async def test_a_picture_in_base64_is_read_by_the_node_that_names_it(client: Client, before: str):
    assert await made(client, json={"prompt": COPY, "files": {"a.png": before + text(RED)}}) == (250, 0, 0)


@pytest.mark.parametrize("document", [COPY, {"prompt": COPY}])
async def test_a_picture_in_a_form_is_read_by_the_node_that_names_it(client: Client, document: Any):
    assert await made(client, data=sent({"a.png": BLUE}, document)) == (0, 0, 250)


async def test_pictures_of_one_name_never_meet_and_one_picture_is_kept_once(client: Client, tmp_path: Path):
    async with serving(tmp_path) as fresh:
        for content in (RED, BLUE, RED):
            await fresh.post("/prompt", {"prompt": COPY, "files": {"a.png": text(content)}})
        waiting = (await fresh.get("/history?max_items=3"), await fresh.get("/queue"))
        assert json.dumps(waiting).count("inline/") >= 3
    kept = [path.read_bytes() for path in (tmp_path / "input" / "inline").rglob("*.png")]
    assert sorted(kept) == sorted([RED, BLUE])


async def test_each_job_of_a_batch_may_have_a_picture_of_its_own(client: Client):
    files = {"a.png": text(RED), "b.png": text(BLUE)}
    batch = {"prompt": COPY, "files": files, "sets": [{}, {"LoadImage.image": "b.png"}]}
    ids = [job["prompt_id"] for job in (await client.post("/batch", batch))["jobs"]]
    seen: list[Any] = []
    for job_id in ids:
        (file,) = (await client.until(job_id, "completed"))["outputs"]["2"]["images"]
        async with client.http.get("/view", params=file) as answer:
            seen.append(picture(await answer.read()).getpixel((0, 0)))
    assert seen == [(250, 0, 0), (0, 0, 250)]


async def test_a_picture_set_by_name_is_found(client: Client):
    body = {"prompt": COPY, "set": {"1.image": "other.png"}, "files": {"other.png": text(BLUE)}}
    assert await made(client, json=body) == (0, 0, 250)


async def test_validating_looks_at_the_pictures_too(client: Client):
    status, answer = await told(client.http, "POST", "/validate", data=sent({"a.png": RED}, COPY))
    assert (status, answer["valid"]) == (200, True)
    status, answer = await told(client.http, "POST", "/validate", json={"prompt": COPY})
    assert answer["valid"] is False


HUGE = png(size=(9000, 9000))


@pytest.mark.parametrize(
    ("files", "status", "said"),
    [
        ({"a.png": "no base64!"}, 400, "files['a.png'] has to be a picture in base64"),
        ({"a.png": text(b"GIF89a nothing")}, 415, "files['a.png']: this"),
        ({"a.png": text(b"<svg xmlns='http://www.w3.org/2000/svg'/>" * 4)}, 415, "no picture of a kind that is known"),
        ({"a.png": text(HUGE)}, 413, "9000x9000 is too large"),
        ({"a.png": text(RED), "b.png": text(RED)}, 400, "no node names 'b.png'; give a node"),
        ({"../a.png": text(RED)}, 403, "leads out of the folder"),
        ({"x/a.png": text(RED)}, 400, "a plain name such as photo.png"),
        ({".a.png": text(RED)}, 400, "a plain name such as photo.png"),
        ({"a.png": 7}, 400, "files.a.png"),
        ({f"{n}.png": "" for n in range(65)}, 413, "64 are the most"),
    ],
)
async def test_what_is_no_picture_is_refused_by_its_name(client: Client, files: Any, status: int, said: str):
    answer = await client.post("/prompt", {"prompt": COPY, "files": files}, expected=status)
    assert said in answer["error"]["message"] + answer["error"]["details"]


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([], "one field 'prompt'"),
        ([("document", "{}")], "one field 'prompt' with the JSON, and files besides; found 'document'"),
        ([("prompt", "{}"), ("prompt", "{}")], "one field 'prompt'"),
        ([("prompt", "{")], "not JSON"),
    ],
)
async def test_a_form_that_is_none_is_refused(client: Client, parts: list[tuple[str, str]], said: str):
    form = FormData(parts, default_to_multipart=True)
    status, answer = await told(client.http, "POST", "/prompt", data=form)
    assert status == 400
    assert said in answer["error"]["message"]


async def test_a_form_of_two_files_of_one_name_is_refused(client: Client):
    form = sent({"a.png": RED}, COPY)
    form.add_field("more", io.BytesIO(BLUE), filename="a.png")
    status, answer = await told(client.http, "POST", "/prompt", data=form)
    assert (status, "two files of the form are called 'a.png'" in answer["error"]["message"]) == (400, True)


async def test_a_body_that_is_too_large_is_told_of_the_other_ways(tmp_path: Path):
    async with serving(tmp_path, web=WebOptions(max_upload_size=1)) as client:
        status, _ = await told(client.http, "POST", "/prompt", data=sent({"a.png": bytes(2 << 20)}, COPY))
        assert status == 413
    async with serving(tmp_path) as client:
        status, answer = await told(client.http, "POST", "/prompt", data=io.BytesIO(bytes(17 << 20)))
        assert (status, "multipart/form-data" in answer["error"]["message"]) == (413, True)


# Pictures as the answer


@pytest.mark.parametrize(
    ("accept", "form"),
    [("image/png", "PNG"), ("image/*", "PNG"), ("image/webp, */*;q=0.1", "WEBP"), ("image/jpeg", "JPEG")],
)
@pytest.mark.parametrize("workflow", [COPY, SHOWN])
async def test_the_answer_may_be_the_picture_itself(client: Client, accept: str, form: str, workflow: Any):
    body = sent({"a.png": RED}, workflow)
    path = f"/prompt?wait={PATIENCE}"
    async with client.http.post(path, data=body, headers={"Accept": accept}) as answer:
        assert (answer.status, answer.content_type) == (200, f"image/{form.lower()}")
        assert answer.headers["X-Prompt-Id"]
        assert picture(await answer.read()).format == form


@pytest.mark.parametrize(
    ("path", "accept", "body", "status", "said"),
    [
        ("/prompt", "image/png", {"prompt": chain()}, 400, "?wait=60"),
        (f"/prompt?wait={PATIENCE}", "image/avif", {"prompt": chain()}, 406, "image/webp"),
        (f"/prompt?wait={PATIENCE}", "image/png", {"prompt": chain()}, 406, "made no picture"),
        (f"/prompt?wait={PATIENCE}", "image/png", {"prompt": chain("Fail")}, 422, "the thread broke"),
    ],
)
async def test_an_answer_that_cannot_be_a_picture_says_why_in_json(
    client: Client, path: str, accept: str, body: Any, status: int, said: str
):
    found, answer = await told(client.http, "POST", path, json=body, headers={"Accept": accept})
    assert (found, said in json.dumps(answer)) == (status, True), answer


async def test_whoever_waits_too_shortly_for_a_picture_is_told_of_the_job(client: Client):
    workflow, picture_only = {"1": use("Wait"), "2": use("Show", yarn=["1", 0])}, {"Accept": "image/png"}
    status, answer = await told(
        client.http, "POST", "/prompt?wait=0.01", json={"prompt": workflow}, headers=picture_only
    )
    assert (status, answer["status"] in ("pending", "in_progress")) == (202, True)
    await client.post(f"/jobs/{answer['prompt_id']}/cancel")
    await client.until(answer["prompt_id"], "cancelled")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", None),
        ("*/*", None),
        ("text/html, */*", None),
        ("application/json, image/png", None),
        ("image/png;q=0.5, application/json;q=0.9", None),
        ("image/png, application/json;q=0.9", "image/png"),
        ("IMAGE/PNG", "image/png"),
        ("image/*;q=nonsense", None),
    ],
)
def test_a_picture_is_sent_to_those_who_like_it_better_than_json(accept: str, expected: str | None):
    assert wanted_picture(accept) == expected


async def test_the_ways_to_submit_are_described(client: Client):
    document = await client.get("/openapi.json")
    schemas = document["components"]["schemas"]
    for path, model in (("/prompt", "PromptRequest"), ("/validate", "PromptRequest"), ("/batch", "BatchRequest")):
        content = document["paths"][path]["post"]["requestBody"]["content"]
        assert f"#/components/schemas/{model}" in json.dumps(content["application/json"])
        assert content["multipart/form-data"]["schema"] == {"$ref": "#/components/schemas/PromptForm"}
        assert {"prompt", "files", "webhook"} <= schemas[model]["properties"].keys()
    responses = document["paths"]["/prompt"]["post"]["responses"]
    assert {"application/json", "image/png", "image/jpeg", "image/webp"} == responses["200"]["content"].keys()
    assert {"202", "422"} <= responses.keys()
    assert {"image/png", "image/webp"} <= document["paths"]["/prompt"]["post"]["requestBody"]["content"].keys()
