"""Jobs from the queue to workers and back: cancelled, interrupted, retried, lost with their workers, handed back."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.servers import Client, serving
from tests.workers import alone, chain, use

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(tmp_path: Path) -> AsyncGenerator[Client]:
    async with serving(tmp_path) as client:
        yield client


async def test_only_the_job_that_is_meant_is_interrupted(client: Client):
    running, waiting = await client.submit(alone("Wait")), await client.submit(chain())
    await client.until(running, "in_progress")
    await client.post("/interrupt", {"prompt_id": waiting})
    assert await client.state(running) == "in_progress"
    await client.post("/interrupt", {"prompt_id": running})
    assert (await client.until(running, "cancelled"))["execution_status"]["messages"][-1][0] == "execution_interrupted"
    await client.until(waiting, "completed")


async def test_an_interruption_without_an_id_stops_what_runs(client: Client):
    running = await client.submit(alone("Wait"))
    await client.until(running, "in_progress")
    await client.post("/interrupt")
    await client.until(running, "cancelled")


async def test_an_interruption_that_cannot_be_read_stops_nothing(client: Client):
    running = await client.submit(alone("Wait"))
    await client.until(running, "in_progress")
    await client.post("/interrupt", b"{", expected=400)
    assert await client.state(running) == "in_progress"
    await client.post("/interrupt")


async def test_jobs_are_cancelled_whether_they_wait_or_run(client: Client):
    running, waiting = await client.submit(alone("Wait")), await client.submit(chain())
    await client.until(running, "in_progress")
    assert await client.post(f"/jobs/{waiting}/cancel") == {"cancelled": True}
    assert await client.post("/jobs/cancel", {"job_ids": [running, waiting]}) == {"cancelled": True}
    await client.until(running, "cancelled")
    assert await client.post(f"/jobs/{running}/cancel") == {"cancelled": False}
    wrong = await client.post("/jobs/cancel", {"job_ids": ["7"]}, expected=400)
    assert wrong["invalid_ids"] == ["7"]


async def test_deleting_from_the_queue_leaves_what_runs(client: Client):
    running, waiting = await client.submit(alone("Wait")), await client.submit(chain())
    await client.until(running, "in_progress")
    queue = await client.get("/queue")
    assert [item[1] for item in queue["queue_running"]] == [running]
    assert [item[1:3] for item in queue["queue_pending"]] == [[waiting, chain()]]
    await client.post("/queue", {"delete": [running, waiting]})
    assert await client.state(waiting) == "cancelled" and await client.state(running) == "in_progress"
    await client.post("/queue", {"clear": True})
    assert await client.state(running) == "in_progress"
    await client.post("/interrupt")


async def test_what_waits_goes_by_its_number_and_its_class(client: Client):
    await client.post("/queue/pause")
    later = await client.submit(chain(length=1), priority="background", number=-5)
    second = await client.submit(chain(length=2))
    first = await client.submit(chain(length=3), front=True)
    urgent = await client.submit(chain(length=4), priority="interactive")
    assert [item[1] for item in (await client.get("/queue"))["queue_pending"]] == [urgent, first, second, later]
    assert (await client.get("/prompt"))["exec_info"]["queue_remaining"] == 4
    assert await client.post("/queue/resume") == {"mode": "open"}
    await client.until(later, "completed")
    starts = [(await client.get(f"/jobs/{job}"))["execution_start_time"] for job in (urgent, first, second, later)]
    assert starts == sorted(starts)


async def test_a_queue_that_is_drained_takes_nothing_more(client: Client):
    assert await client.post("/queue/drain") == {"mode": "draining"}
    refused = await client.post("/prompt", {"prompt": chain()}, expected=503)
    assert "drained" in refused["error"]["message"]


async def test_a_job_that_failed_can_be_tried_again(client: Client):
    failed = (await client.run(chain("Fail")))["prompt_id"]
    assert (await client.post(f"/jobs/{failed}/retry"))["prompt_id"] == failed
    await client.until(failed, "failed")
    done = (await client.run(chain()))["prompt_id"]
    await client.post(f"/jobs/{done}/retry", expected=409)
    await client.post("/jobs/00000000-0000-0000-0000-000000000000/retry", expected=404)


async def test_a_job_whose_worker_dies_three_times_has_failed_and_the_queue_goes_on(client: Client):
    async with client.listening() as heard:
        deadly, harmless = await client.submit(alone("Exit", code=7)), await client.submit(chain())
        messages = await heard.job(deadly)
        await heard.job(harmless)
    job = await client.get(f"/jobs/{deadly}")
    assert job["status"] == "failed" and job["attempts"] == 3 and len(job["lost_attempts"]) == 3
    assert "died three times" in job["error"]["message"]
    (error,) = [message["data"] for message in messages if message["type"] == "execution_error"]
    assert error["exception_type"] == "WorkerDied"
    history = (await client.get(f"/history/{deadly}"))[deadly]
    assert history["status"]["messages"][-1][0] == "execution_error"
    assert await client.state(harmless) == "completed"


async def test_a_worker_that_is_killed_costs_one_attempt_of_its_job(client: Client, tmp_path: Path):
    door = tmp_path / "door"
    through = use("Pass", token=["1", 0], door=str(door))
    job_id = await client.submit({"1": use("Mint"), "2": through, "3": use("Announce", token=["2", 0])})
    async with asyncio.timeout(60):
        while not Path(f"{door}.reached").exists():
            await asyncio.sleep(0.02)
    (worker,) = client.service.desk.pool.status().workers
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    door.touch()
    job = await client.until(job_id, "completed")
    assert job["attempts"] == 2 and "SIGKILL" in job["lost_attempts"][0]["cause"]
    assert job["outputs"]["3"]["text"] == ["0"]


async def test_a_server_that_stops_hands_its_jobs_back_and_the_next_one_finishes_them(tmp_path: Path):
    async with serving(tmp_path) as client:
        running, waiting = await client.submit(alone("Wait")), await client.submit(chain())
        await client.until(running, "in_progress")
    async with serving(tmp_path) as client:
        job = await client.until(running, "in_progress")
        assert job["attempts"] == 1
        await client.post(f"/jobs/{running}/cancel")
        await client.until(waiting, "completed")


async def test_jobs_are_paged_filtered_and_sorted(client: Client):
    made = [(await client.run(chain("Twist", length=length)))["prompt_id"] for length in range(5)]
    failed = (await client.run(chain("Fail")))["prompt_id"]
    page = await client.get("/jobs", limit=2, status="completed")
    assert [job["id"] for job in page["jobs"]] == made[:2:-1]
    assert page["pagination"]["total"] == 5 and page["pagination"]["has_more"]
    rest = await client.get("/jobs", limit=9, status="completed", after=page["pagination"]["next"])
    assert [job["id"] for job in rest["jobs"]] == made[2::-1] and not rest["pagination"]["has_more"]
    (job,) = (await client.get("/jobs", status="failed,cancelled"))["jobs"]
    assert job["id"] == failed and job["execution_error"]["exception_type"] == "ValueError"
    for query in ({"status": "lost"}, {"limit": 0}, {"sort_by": "size"}, {"offset": -1}, {"after": "x"}):
        assert (await client.get("/jobs", 400, **query))["error"]
    assert (await client.get("/jobs/nothing", 404))["error"] == "Job not found"


async def test_the_history_is_read_in_parts_and_forgotten(client: Client):
    made = [(await client.run(chain(length=length)))["prompt_id"] for length in range(4)]
    assert list(await client.get("/history")) == made
    assert list(await client.get("/history", max_items=2)) == made[2:]
    assert list(await client.get("/history", offset=1)) == made[1:]
    assert list(await client.get("/history", offset=1, max_items=2)) == made[1:3]
    assert list(await client.get("/history", offset=-1, max_items=1)) == made[3:]
    await client.get("/history", 400, max_items="many")
    await client.post("/history", {"delete": [made[0], "nothing"]})
    assert list(await client.get("/history")) == made[1:]
    await client.post("/history", {"clear": True})
    assert await client.get("/history") == {} == await client.get(f"/history/{made[1]}")


async def test_a_job_tells_how_long_its_nodes_took_and_what_happened(client: Client):
    job_id = (await client.run(chain("TwistTwice")))["prompt_id"]
    job = await client.get(f"/jobs/{job_id}")
    assert set(job["node_times"]) == {"1", "2", "3"} and job["steps_run"] == 5
    assert job["execution_start_time"] <= job["execution_end_time"] and job["workflow"]["prompt"] == chain("TwistTwice")
    told = await client.get(f"/jobs/{job_id}/events")
    numbers = [event["number"] for event in told["events"]]
    assert numbers == sorted(set(numbers)) and told["events"][-1]["data"]["node"] is None
    later = await client.get(f"/jobs/{job_id}/events", after=numbers[-2])
    assert [event["number"] for event in later["events"]] == numbers[-1:]


async def test_workers_let_go_of_what_they_hold_when_they_are_asked(client: Client):
    await client.post("/free", {"unload_models": True, "free_memory": True})
    await client.post("/free")
    await client.post("/free", b"[]", expected=400)
    assert (await client.run(chain()))["status"] == "completed"
