"""Workflows in over HTTP: what is taken, what is refused and how, and what comes out."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from graph.workflow import read
from tests.servers import Client, serving
from tests.workers import chain, use

pytestmark = pytest.mark.anyio

BROKEN = {**chain("Twist"), "9": use("Show", yarn=["nowhere", 0])}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncGenerator[Client]:
    async with serving(tmp_path) as client:
        yield client


async def test_whoever_waits_gets_the_outputs_in_the_answer(client: Client):
    answer = await client.run(chain("Twist", length=4))
    assert answer["status"] == "completed" and answer["node_errors"] == {}
    (text,) = answer["outputs"]["3"]["text"]
    assert text.startswith("5 in ")


async def test_what_was_made_is_in_the_history_in_the_protocols_shape(client: Client):
    job_id = (await client.run(chain("Twist")))["prompt_id"]
    entry = (await client.get(f"/history/{job_id}"))[job_id]
    number, same_id, prompt, extra, outputs = entry["prompt"]
    assert (number, same_id, outputs) == (1, job_id, ["3"]) and isinstance(number, int)
    assert prompt == chain("Twist") and extra["client_id"] == client.id and extra["create_time"] > 10**12
    assert entry["outputs"]["3"]["text"] and entry["meta"]["3"]["real_node_id"] == "3"
    status = entry["status"]
    assert (status["status_str"], status["completed"]) == ("success", True)
    assert [kind for kind, _ in status["messages"]] == ["execution_start", "execution_cached", "execution_success"]
    assert await client.get("/history") == {job_id: entry} == await client.get("/api/history")


async def test_a_job_is_queued_under_the_id_that_was_chosen_and_only_once(client: Client):
    job_id = str(uuid4())
    assert await client.submit(chain(), prompt_id=job_id) == job_id
    again = await client.post("/prompt", {"prompt": chain(), "prompt_id": job_id}, expected=409)
    assert again["error"]["type"] == "duplicate_prompt_id" and again["node_errors"] == {}


@pytest.mark.parametrize("wrong", ["7", "A" * 36, "83233C69-2517-472C-93F6-9624E8C1DC16"])
async def test_an_id_that_is_no_uuid_is_refused(client: Client, wrong: str):
    answer = await client.post("/prompt", {"prompt": chain(), "prompt_id": wrong}, expected=400)
    assert answer["error"]["type"] == "invalid_prompt_id"


REFUSED: list[tuple[Any, str]] = [
    ({}, "no_prompt"),
    ({"prompt": None}, "no_prompt"),
    ({"prompt": []}, "invalid_prompt"),
    ({"prompt": {}}, "invalid_prompt"),
    ({"prompt": {"1": {"inputs": {}}}}, "invalid_prompt"),
    ({"prompt": {"1": use("Spinn")}}, "invalid_prompt"),
    ({"prompt": {"1": use("Spin")}}, "prompt_no_outputs"),
    ({"prompt": chain(), "partial_execution_targets": []}, "prompt_no_outputs"),
    ({"prompt": {"1": use("Show", yarn=["1", 0])}}, "prompt_outputs_failed_validation"),
    ({"prompt": {"1": use("Show")}}, "prompt_outputs_failed_validation"),
    ({"prompt": chain(), "number": "soon"}, "invalid_request"),
    ({"prompt": chain(), "extra_data": 3}, "invalid_request"),
    ({"prompt": chain(), "set": {"Spin.length": "long"}}, "prompt_outputs_failed_validation"),
    ({"prompt": chain(), "set": {"Spin.colour": "red"}}, "invalid_override"),
    ([], "invalid_request"),
    (b"", "invalid_json"),
    (b"{", "invalid_json"),
    (b'{"prompt": NaN}', "invalid_json"),
    (b"[" * 100_000, "invalid_json"),
    (b"\xff\xfe", "invalid_json"),
]


@pytest.mark.parametrize(("body", "kind"), REFUSED)
async def test_what_cannot_be_run_is_refused_in_the_protocols_shape(client: Client, body: Any, kind: str):
    answer = await client.post("/prompt", body, expected=400)
    assert answer["error"]["type"] == kind, answer
    assert set(answer["error"]) == {"type", "message", "details", "extra_info"}
    assert isinstance(answer["node_errors"], dict)
    assert (await client.get("/prompt"))["exec_info"] == {"queue_remaining": 0}


async def test_outputs_that_can_be_made_are_made_and_the_others_are_explained(client: Client):
    answer = await client.run(BROKEN)
    assert answer["status"] == "completed" and list(answer["outputs"]) == ["3"]
    (error,) = answer["node_errors"]["9"]["errors"]
    assert error["extra_info"]["input_name"] == "yarn" and answer["node_errors"]["9"]["dependent_outputs"] == ["9"]


async def test_validating_tells_everything_and_queues_nothing(client: Client):
    good = await client.post("/validate", {"prompt": chain()})
    assert good["valid"] and good["runs"] == ["2"]
    wrong = await client.post("/validate", {"prompt": {"1": use("Show"), "2": use("Show", yarn=["9", 0])}})
    assert not wrong["valid"] and {problem["node_id"] for problem in wrong["problems"]} == {"1", "2"}
    assert (await client.get("/jobs"))["jobs"] == []


async def test_inputs_can_be_set(client: Client):
    answer = await client.run(chain("Twist"), set={"Spin.length": 40})
    assert answer["outputs"]["3"]["text"][0].startswith("41 in ")


async def test_a_batch_is_one_workflow_run_with_other_inputs(client: Client):
    sets = [{"Spin.length": length} for length in (10, 20, 30)]
    answer = await client.post("/batch", {"prompt": chain("Twist"), "sets": sets})
    made = [await client.until(job["prompt_id"], "completed") for job in answer["jobs"]]
    assert [job["outputs"]["3"]["text"][0].split()[0] for job in made] == ["11", "21", "31"]
    refused = await client.post("/batch", {"prompt": chain(), "sets": [{}, {"Spin.length": "x"}]}, expected=400)
    assert refused["error"]["extra_info"] == {"set": 1}


async def test_keys_of_other_services_are_shown_to_nobody(client: Client):
    extra = {"auth_token_comfy_org": "hush-hush", "api_key_comfy_org": "hush-hush", "kept": 1}
    await client.post("/queue/pause")
    job_id = await client.submit(chain(), extra_data=extra)
    for path in ("/queue", f"/jobs/{job_id}"):
        assert "hush-hush" not in json.dumps(await client.get(path))
    (item,) = (await client.get("/queue"))["queue_pending"]
    assert item[1] == job_id and item[3]["kept"] == 1


async def test_the_body_may_be_a_picture_that_carries_a_workflow(client: Client, tmp_path: Path):
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    texts = PngInfo()
    texts.add_text("prompt", json.dumps(chain("Twist", length=6)))
    Image.new("L", (1, 1)).save(tmp_path / "picture.png", pnginfo=texts)
    body = (tmp_path / "picture.png").read_bytes()
    answer = await client.post("/prompt", body, wait=60)
    assert answer["outputs"]["3"]["text"][0].startswith("7 in ")


async def test_a_node_that_fails_fails_its_job_with_its_reason(client: Client):
    answer = await client.run(chain("Fail"))
    assert answer["status"] == "failed"
    error = answer["error"]
    assert (error["type"], error["node_id"]) == ("ValueError", "2") and "the thread broke" in error["message"]
    entry = (await client.get(f"/history/{answer['prompt_id']}"))[answer["prompt_id"]]
    assert entry["status"]["status_str"] == "error" and not entry["status"]["completed"]
    kind, data = entry["status"]["messages"][-1]
    assert kind == "execution_error" and data["traceback"] == [] and data["node_type"] == "Fail"


async def test_the_page_brings_everything_itself(client: Client):
    async with client.http.get("/") as answer:
        page = await answer.text()
        assert answer.content_type == "text/html" and "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "<title>Latentloom</title>" in page and "src=http" not in page and 'href="http' not in page


async def test_a_pretty_printed_editor_document_runs_as_it_is(client: Client):
    from workflows.documents import Document
    from workflows.editor.editor_form import to_editor

    document = Document(read(chain("Twist", length=8)))
    form = to_editor(document.workflow, await client.get("/object_info"))
    answer = await client.post("/prompt", json.dumps(form, indent=2).encode(), wait=60)
    ((text,),) = [output["text"] for output in answer["outputs"].values()]
    assert text.startswith("9 in ")
    job = await client.get(f"/jobs/{answer['prompt_id']}")
    assert job["workflow"]["extra_data"]["extra_pnginfo"]["workflow"]["nodes"]
