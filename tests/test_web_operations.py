"""What those see who keep a server running: health, readiness, metrics, and the logs."""

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.logs import Format, log_to_stderr
from server.web.keys import StatedKey
from server.web.options import WebOptions
from tests.servers import PATIENCE, Client, serving
from tests.web_site import ANN, bearer
from tests.workers import chain, use

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.anyio


async def scraped(client: Client) -> dict[str, float]:
    """Every sample that `/metrics` gives, by name and labels."""
    async with client.http.get("/metrics") as answer:
        assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = await answer.text()
    return {
        sample.name + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_metrics_say_what_was_run_and_what_was_reused(tmp_path: Path):
    async with serving(tmp_path) as client:
        for _ in range(2):
            await client.run(chain("Twist"))
        await client.get("/jobs/nobody", expected=404)
        said = await scraped(client)
    assert said["latentloom_job_seconds_count state=done"] == 2
    assert said["latentloom_jobs state=done"] == 2
    assert said["latentloom_queue_jobs class=normal state=queued"] == 0
    # Whatever is shown is shown again; what it is made of is not made again.
    assert said["latentloom_node_seconds_count class_type=Show"] == 2
    assert said["latentloom_node_seconds_count class_type=Twist"] == 1
    assert said["latentloom_steps_total how=run"] == 4 and said["latentloom_steps_total how=reused"] >= 1
    assert said["latentloom_store_lookups_total tier=memory"] >= 1
    assert said["latentloom_http_requests_total method=POST route=/prompt status=200"] == 2
    assert said["latentloom_http_requests_total method=GET route=/jobs/{job_id} status=404"] == 1
    assert said["latentloom_workers device=cpu state=idle"] == 1
    assert said["latentloom_worker_restarts_total"] == 0
    assert said["latentloom_event_loop_lag_seconds_count"] >= 1


async def test_metrics_count_what_waits_and_what_lies_on_the_disk(tmp_path: Path):
    async with serving(tmp_path) as client:
        await client.run(chain("TwistSlowly"))
        await client.post("/queue/pause")
        await client.submit(chain(), priority="background")
        said = await scraped(client)
        assert said["latentloom_queue_jobs class=background state=queued"] == 1
        async with asyncio.timeout(PATIENCE):
            while (said := await scraped(client))["latentloom_store_entries"] == 0:
                await asyncio.sleep(0.05)
        assert said["latentloom_store_bytes"] > 0


async def test_a_server_is_ready_when_it_takes_jobs(tmp_path: Path):
    async with serving(tmp_path) as client:
        assert await client.get("/health") == {"status": "ok"}
        await client.run(chain())
        assert await client.get("/ready") == {"ready": True, "reasons": []}
        await client.post("/queue/drain")
        (reason,) = (await client.get("/ready", expected=503))["reasons"]
        assert "POST /queue/resume" in reason
        await client.post("/queue/resume")
        client.service.desk.dispatcher.stop()
        assert (await client.get("/ready", expected=503))["reasons"] == ["the server is stopping"]
        assert await client.get("/health") == {"status": "ok"}


async def test_a_database_that_does_not_answer_is_a_reason(tmp_path: Path):
    async with serving(tmp_path) as client:
        await client.run(chain())
        await client.service.desk.queue._database.close()  # pyright: ignore[reportPrivateUsage]  # as if the disk were gone
        assert (await client.get("/ready", expected=503))["reasons"] == ["the database does not answer"]
        assert await client.get("/health") == {"status": "ok"}


async def test_only_metrics_ask_for_a_key(tmp_path: Path):
    async with serving(tmp_path, web=WebOptions(api_key=(StatedKey.parse(f"ann={ANN}"),))) as client:
        statuses: dict[str, int] = {}
        for path in ("/health", "/ready", "/metrics"):
            async with client.http.get(path) as answer:
                statuses[path] = answer.status
        async with client.http.get("/metrics", headers=bearer(ANN)) as answer:
            assert answer.status == 200
        assert statuses["/health"] == 200 and statuses["/ready"] in (200, 503) and statuses["/metrics"] == 401


def test_a_server_starts_without_what_only_workers_and_migrations_need():
    ask = (
        "import sys, server.commands.serve, server.service, nodes.engine; nodes.engine.built_in(); print(*sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(said.stdout.split())
    assert "nodes.sampling" in loaded and not loaded & {"torch", "diffusers", "transformers", "numpy", "PIL", "alembic"}


@pytest.fixture
def untouched() -> Generator[None]:
    """The log is as it was, afterwards."""
    logger, access = logging.getLogger("latentloom"), logging.getLogger("latentloom.access")
    before = logger.handlers, logger.level, access.level
    yield
    logger.handlers = before[0]
    logger.setLevel(before[1])
    access.setLevel(before[2])


async def logged(client: Client, form: Format, capsys: pytest.CaptureFixture[str]) -> tuple[str, list[str]]:
    """The id of a job with a prompt in it that was run, and what was logged of that."""
    log_to_stderr("INFO", form, requests=True)
    workflow = {"1": use("PrimitiveString", value="a secret boat"), "2": use("PreviewAny", source=["1", 0])}
    job_id = (await client.run(workflow))["prompt_id"]
    said = capsys.readouterr().err
    assert "secret boat" not in said
    return job_id, said.splitlines()


@pytest.mark.usefixtures("untouched")
async def test_the_log_names_the_job_and_says_nothing_of_what_is_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    async with serving(tmp_path) as client:
        job_id, lines = await logged(client, "json", capsys)
        about = [line for line in map(json.loads, lines) if line.get("job") == job_id]
        assert [line["message"].split(" after")[0] for line in about] == [f"job {job_id} begins", f"job {job_id}: done"]
        assert all(line["level"] == "INFO" and line["time"].endswith("+00:00") for line in about)
        job_id, lines = await logged(client, "text", capsys)
        assert sum(job_id in line for line in lines) == 2 and all("INFO" in line for line in lines)
