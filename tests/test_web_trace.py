"""Jobs as traces: what is shown of them nests, and adds up to how long they took."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Client, serving
from tests.workers import alone, chain, use

pytestmark = pytest.mark.anyio

Json = dict[str, Any]


@pytest.fixture
async def client(tmp_path: Path) -> AsyncGenerator[Client]:
    async with serving(tmp_path) as client:
        yield client


async def traced(client: Client, workflow: Json) -> list[Json]:
    """The events of the trace of a job that is run."""
    job_id = await client.submit(workflow)
    await client.until(job_id, "completed", "failed")
    return (await client.get(f"/jobs/{job_id}/trace"))["traceEvents"]


def spans(events: Sequence[Json], *kinds: str) -> list[Json]:
    return [event for event in events if event["ph"] == "X" and event["cat"] in kinds]


def end(span: Json) -> float:
    return span["ts"] + span["dur"]


def inside(span: Json, other: Json) -> bool:
    return other["ts"] <= span["ts"] and end(span) <= end(other) + 0.01


async def test_waiting_and_the_attempt_add_up_to_the_job(client: Client):
    job_id = await client.submit(chain("Twist"))
    job = await client.until(job_id, "completed")
    events = (await client.get(f"/jobs/{job_id}/trace"))["traceEvents"]
    (waited,), (attempt,) = spans(events, "queue"), spans(events, "attempt")
    assert waited["ts"] == 0 and end(waited) == attempt["ts"]
    assert end(attempt) == 1000 * (job["execution_end_time"] - job["create_time"])
    assert attempt["args"] | {"state": "done", "ran": 3, "reused": 0} == attempt["args"]


async def test_steps_nest_in_their_composite_and_nodes_in_the_attempt(client: Client):
    events = await traced(client, chain("TwistTwice"))
    (attempt,) = spans(events, "attempt")
    nodes = {span["args"]["node_id"]: span for span in spans(events, "run")}
    steps = [span for span in nodes.values() if span["args"].get("parent") == "2"]
    assert [span["args"]["class_type"] for span in steps] == ["Twist", "Twist"]
    assert all(inside(step, nodes["2"]) and step["tid"] == nodes["2"]["tid"] for step in steps)
    assert sum(step["dur"] for step in steps) <= nodes["2"]["dur"]
    assert all(inside(node, attempt) for node in nodes.values())


async def test_what_shares_a_row_does_not_overlap(client: Client):
    workflow = {str(at): use("Spin", length=at) for at in range(1, 5)}
    workflow |= {f"{at}s": use("Show", yarn=[str(at), 0]) for at in range(1, 5)}
    nodes = spans(await traced(client, workflow), "run")
    rows = {node["tid"] for node in nodes}
    assert len(nodes) == 8
    for row in rows:
        ordered = sorted((node for node in nodes if node["tid"] == row), key=lambda node: node["ts"])
        assert all(end(before) <= after["ts"] + 0.01 for before, after in pairwise(ordered))


async def test_what_was_reused_is_told_from_what_ran(client: Client):
    await client.run(chain("Twist"))
    events = await traced(client, chain("Twist"))
    assert [span["args"]["class_type"] for span in spans(events, "run")] == ["Show"]
    assert [span["args"]["class_type"] for span in spans(events, "reused")] == ["Twist"]


async def test_progress_is_shown_step_by_step(client: Client):
    events = await traced(client, {"1": use("Tick", times=3)})
    assert [event["args"] for event in events if event["ph"] == "C"][-1] == {"done": 3, "to do": 0}


async def test_every_attempt_is_shown(client: Client):
    events = await traced(client, alone("Crash"))
    attempts, waits = spans(events, "attempt"), spans(events, "queue")
    assert [attempt["name"] for attempt in attempts] == ["attempt 1", "attempt 2", "attempt 3"]
    assert all(
        inside({**wait, "ts": end(wait), "dur": 0}, attempt) for wait, attempt in zip(waits, attempts, strict=True)
    )
    assert "crashed" in attempts[0]["args"]["ended"]


async def test_a_job_that_runs_has_a_trace_up_to_now(client: Client):
    workflow = {"1": use("Spin"), "2": use("Wait", yarn=["1", 0]), "3": use("Show", yarn=["2", 0])}
    job_id = await client.submit(workflow)
    while not (nodes := spans((await client.get(f"/jobs/{job_id}/trace"))["traceEvents"], "run")):
        await asyncio.sleep(0.02)
    assert [node["args"]["class_type"] for node in nodes] == ["Spin"]
    await client.post("/interrupt")
    await client.until(job_id, "cancelled")


async def test_a_job_that_waits_has_waited(client: Client):
    await client.post("/queue/pause")
    job_id = await client.submit(chain())
    trace = await client.get(f"/jobs/{job_id}/trace")
    assert [event["name"] for event in trace["traceEvents"] if event["ph"] == "X"] == ["queued"]
    await client.get("/jobs/00000000-0000-4000-8000-000000000000/trace", expected=404)
