"""Jobs in worker processes: what is told of them, how they end, and what they leave for the next one."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from server.workers.messages import JobEvent, NodeFailed, NodeFinished, NodeProgressed, RunStarted
from tests.worker_nodes import PNG
from tests.workers import (
    alone,
    begun,
    chain,
    job,
    names,
    only_worker,
    pool_of,
    process_of,
    ran,
    ready,
    reused,
    run,
    shown,
    told,
    use,
)
from workflows.documents import EXAMPLES

pytestmark = pytest.mark.anyio

HEAVY = """
import sys
import server.workers.pool
print(*{"torch", "numpy", "PIL", "diffusers", "networkx", "nodes", "graph.executor"}.intersection(sys.modules))
"""


def test_the_server_imports_neither_torch_nor_the_engine():
    said = subprocess.run([sys.executable, "-c", HEAVY], capture_output=True, text=True, check=True)
    assert said.stdout.split() == []


async def test_a_job_runs_and_its_events_come_in_order(tmp_path: Path):
    async with pool_of(tmp_path) as pool:
        result, events = await told(pool, chain("Twist"))
        assert result.status == "done" and shown(result, "3").startswith("2 in ")
        assert result.worker == "cpu/1.1" and (result.ran, result.reused) == (3, 0)
    assert names(events) == [
        "run_started",
        *("node_started 1", "node_finished 1"),
        *("node_started 2", "node_finished 2"),
        *("node_started 3", "node_finished 3"),
        "run_finished",
    ]
    assert isinstance(events[0], RunStarted) and events[0].needed == ("1", "2", "3")
    assert [event.at for event in events] == sorted(event.at for event in events)
    assert isinstance(events[6], NodeFinished) and events[6].ui is not None
    assert json.loads(events[6].ui) == json.loads(result.outputs)["3"]


async def test_two_jobs_share_results_but_not_ids(tmp_path: Path):
    async with pool_of(tmp_path, {"store": "memory"}) as pool:
        _, first = await told(pool, chain("Twist"))
        other = {f"n{node_id}": entry for node_id, entry in chain("Twist").items()}
        other["n2"]["inputs"]["yarn"][0] = "n1"
        other["n3"]["inputs"]["yarn"][0] = "n2"
        _, second = await told(pool, other)
    assert (ran(first), reused(first)) == (["1", "2", "3"], [])
    assert (ran(second), reused(second)) == (["n3"], ["n2"])


async def test_steps_inside_a_composite_name_it(tmp_path: Path):
    async with pool_of(tmp_path) as pool:
        _, events = await told(pool, chain("TwistTwice"))
    inner = [event for event in events if isinstance(event, NodeFinished) and event.parent is not None]
    assert [(event.class_name, event.parent) for event in inner] == [("Twist", "2"), ("Twist", "2")]
    progress = [(event.value, event.maximum) for event in events if isinstance(event, NodeProgressed)]
    assert progress[-1] == (2, 2) and all(event.node_id == "2" for event in events if isinstance(event, NodeProgressed))


async def test_only_targets_run(tmp_path: Path):
    workflow = chain("Twist") | {"9": use("Show", yarn=["1", 0])}
    async with pool_of(tmp_path) as pool:
        _, events = await told(pool, workflow, targets=["9"])
    assert ran(events) == ["1", "9"]


async def test_a_worker_imports_nothing_heavy_before_a_node_does(tmp_path: Path):
    async with pool_of(tmp_path) as pool:
        assert shown(await run(pool, alone("Modules")), "1") == ""


async def test_an_invalid_workflow_comes_back_with_all_its_problems(tmp_path: Path):
    async with pool_of(tmp_path) as pool:
        result = await run(pool, {"1": use("Nothing"), "2": use("Show"), "3": use("Show", yarn=["8", 0])})
        assert result.status == "invalid"
        assert {problem.kind for problem in result.problems} == {"unknown_class", "missing_input", "missing_node"}
        result = await run(pool, {})
        assert [problem.kind for problem in result.problems] == ["not_a_workflow"]


async def test_a_failure_says_where_and_why_and_shows_no_traceback(tmp_path: Path):
    workflow = chain("Fail") | {"8": use("Show", yarn=["1", 0])}
    workflow["2"]["_meta"] = {"title": "Weak spot"}
    async with pool_of(tmp_path) as pool:
        result, events = await told(pool, workflow)
    (failure,) = result.failures
    assert result.status == "failed" and list(json.loads(result.outputs)) == ["8"]
    assert (failure.kind, failure.type, failure.node_id) == ("node_failed", "ValueError", "2")
    assert (failure.class_name, failure.title) == ("Fail", "Weak spot")
    assert failure.message == "ValueError: the thread broke" and failure.text.startswith("node 2 (Fail “Weak spot”)")
    assert [event.failure for event in events if isinstance(event, NodeFailed)] == [failure]
    assert "Traceback" not in repr(result) and __file__ not in repr(result)


@pytest.mark.parametrize(("name", "kind"), [("Starve", "out_of_memory"), ("Quit", "node_failed")])
async def test_a_node_that_gives_up_fails_alone(name: str, kind: str, tmp_path: Path):
    async with pool_of(tmp_path) as pool:
        result = await run(pool, alone(name))
        assert [failure.kind for failure in result.failures] == [kind]
        after = await run(pool, chain())
    assert after.status == "done" and after.worker == result.worker


async def test_a_node_that_takes_too_long_fails_and_its_worker_is_replaced(tmp_path: Path):
    async with pool_of(tmp_path) as pool:
        result = await run(pool, alone("Persist"), node_timeout=0.1)
        assert [failure.kind for failure in result.failures] == ["timed_out"]
        assert (await run(pool, chain())).worker == "cpu/1.2"


async def test_cancelling_stops_this_job_and_no_other(tmp_path: Path):
    async with pool_of(tmp_path) as pool:

        def cancel(events: Sequence[JobEvent]) -> None:
            if begun(events, "Wait"):
                assert pool.cancel("this one") and not pool.cancel("no such job")

        running = pool.run(job(alone("Wait"), "this one"), cancel)
        waiting = pool.run(job(chain(), "the next one"))
        first, second = await asyncio.gather(running, waiting)
        assert (first.status, second.status) == ("cancelled", "done")
        assert first.worker == second.worker
        assert not pool.cancel("this one")


async def test_a_job_that_waits_is_cancelled_at_once(tmp_path: Path):
    async with pool_of(tmp_path) as pool:
        running = asyncio.create_task(pool.run(job(alone("Wait"), "first")))
        waiting = asyncio.create_task(pool.run(job(chain(), "second")))
        await pool.wait_until(lambda status: status.workers[0].job_id == "first" and status.waiting == 1)
        assert pool.cancel("second")
        assert (await waiting).status == "cancelled" and not running.done()
        assert pool.cancel("first")
        assert (await running).status == "cancelled"


async def test_who_stops_waiting_for_a_job_cancels_it(tmp_path: Path):
    async with pool_of(tmp_path) as pool:
        running = asyncio.create_task(pool.run(job(alone("Wait"), "given up")))
        await pool.wait_until(lambda status: status.workers[0].job_id == "given up")
        running.cancel()
        assert (await run(pool, chain())).status == "done"


async def test_a_job_that_does_not_stop_loses_its_worker(tmp_path: Path):
    async with pool_of(tmp_path, cancel_seconds=0.1) as pool:

        def cancel(events: Sequence[JobEvent]) -> None:
            if begun(events, "Persist"):
                pool.cancel("stubborn")

        assert (await pool.run(job(alone("Persist"), "stubborn"), cancel)).status == "cancelled"
        assert (await run(pool, chain())).worker == "cpu/1.2"
        assert pool.status().deaths == {"stuck": 1}


async def test_two_workers_run_two_jobs_at_once(tmp_path: Path):
    async with pool_of(tmp_path, devices=("cpu", "cpu")) as pool:
        running = [asyncio.create_task(pool.run(job(alone("Wait"), name))) for name in ("one", "other")]
        both = await pool.wait_until(lambda status: {worker.job_id for worker in status.workers} == {"one", "other"})
        assert len({worker.pid for worker in both.workers}) == 2
        for name in ("one", "other"):
            pool.cancel(name)
        assert [(await each).status for each in running] == ["cancelled"] * 2


async def test_what_a_listener_raises_stops_the_job_and_comes_out(tmp_path: Path):
    def refuse(events: Sequence[JobEvent]) -> None:
        if begun(events, "Wait"):
            raise LookupError("not interested")

    async with pool_of(tmp_path) as pool:
        with pytest.raises(LookupError, match="not interested"):
            await pool.run(job(alone("Wait")), refuse)
        assert (await run(pool, chain())).worker == "cpu/1.1"


async def test_one_id_is_one_job(tmp_path: Path):
    async with pool_of(tmp_path) as pool:
        first = asyncio.create_task(pool.run(job(chain(), "twice")))
        await pool.wait_until(lambda status: status.waiting == 1)
        with pytest.raises(ValueError, match="there is a job twice already"):
            await pool.run(job(chain(), "twice"))
        assert (await first).status == "done"


async def test_whatever_nodes_print_does_no_harm(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", "latentloom.worker.output")
    async with pool_of(tmp_path) as pool:
        result = await run(pool, alone("Scribble"))
        assert shown(result, "1") == "scribbled"
        assert process_of(await run(pool, chain())) == (await only_worker(pool)).pid
    assert any(record.message == "cpu/1.1: a stray print" for record in caplog.records)
    assert len(caplog.records) < 1000


async def test_what_nodes_log_is_logged_with_their_job(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    async with pool_of(tmp_path) as pool:
        await pool.run(job(alone("Warn"), "warning"))
    (record,) = (record for record in caplog.records if record.name == "latentloom.wool")
    assert (record.levelname, record.message) == ("WARNING", "the wool is thin")
    assert (vars(record)["job"], vars(record)["worker"]) == ("warning", "cpu/1.1")


async def test_programs_that_nodes_start_find_their_own_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with pool_of(tmp_path) as pool:
        assert shown(await run(pool, alone("Variable", name="PYTHONPATH")), "1") == str(tmp_path)


@pytest.mark.parametrize("aloud", [False, True])
async def test_progress_is_told_as_often_as_somebody_can_look_and_last_when_done(aloud: bool, tmp_path: Path):
    async with pool_of(tmp_path, {"progress_per_second": 0.1}) as pool:
        result, events = await told(pool, alone("Tick", times=5_000, aloud=aloud))
    values = [event.value for event in events if isinstance(event, NodeProgressed)]
    assert result.status == "done"
    assert 1 <= len(values) <= 2 and values[-1] == 5_000
    assert names(events)[-3:] == ["node_progressed 1", "node_finished 1", "run_finished"]


async def test_previews_come_if_they_are_wanted(tmp_path: Path):
    async with pool_of(tmp_path, {"progress_per_second": 1e6}) as pool:
        wanted, events = await told(pool, alone("Draw", times=3), previews=True)
        unwanted, without = await told(pool, alone("Draw", times=3))
    pictures = [event.preview for event in events if isinstance(event, NodeProgressed) and event.preview is not None]
    assert shown(wanted, "1") == "drawn 3" and shown(unwanted, "1") == "drawn 0"
    assert pictures and all((picture.media_type, picture.data) == ("image/png", PNG) for picture in pictures)
    assert not any(event.preview for event in without if isinstance(event, NodeProgressed))


async def test_megabytes_of_events_arrive_while_another_worker_goes_on(tmp_path: Path):
    size, count = 200_000, 100
    loud = {str(at): use("Shout", number=at, size=size) for at in range(count)}
    async with pool_of(tmp_path, devices=("cpu", "cpu")) as pool:
        await pool.wait_until(ready)
        shouting = asyncio.create_task(told(pool, loud))
        while not shouting.done():
            assert (await run(pool, chain())).status == "done"
        result, events = await shouting
        assert pool.status().deaths == {}
    said = [event.ui for event in events if isinstance(event, NodeFinished)]
    assert len(said) == count and all(ui is not None and len(ui) > size for ui in said)
    assert len(result.outputs) > count * size


async def test_what_is_no_json_is_shown_as_text(tmp_path: Path):
    async with pool_of(tmp_path) as pool:
        result = await run(pool, alone("Odd"))
    nan, pair, kind, text = json.loads(result.outputs)["1"]["odd"]
    assert nan is None and sorted(pair) == [1, 2] and "object" in kind and text == "\udcff"


async def test_files_are_named_and_can_carry_the_documents(tmp_path: Path):
    workflow = {"1": use("Write")}
    async with pool_of(tmp_path, {"output": tmp_path / "elsewhere"}) as pool:
        result, events = await told(pool, workflow, extra={"workflow": {"drawn": "by hand"}})
    (path,) = result.files["1"]
    assert [event.files for event in events if isinstance(event, NodeFinished)] == [(path,)]
    assert json.loads(result.outputs)["1"]["images"][0]["filename"] == "written.json"
    written = json.loads((tmp_path / "elsewhere" / "written.json").read_text())
    assert json.loads(written["prompt"]) == workflow and json.loads(written["workflow"]) == {"drawn": "by hand"}


async def test_freeing_memory_makes_results_be_made_again(tmp_path: Path):
    async with pool_of(tmp_path, {"store": "memory"}) as pool:
        await run(pool, chain("Twist"))
        assert await pool.free(models=True, memory=True) > 0
        _, events = await told(pool, chain("Twist"))
        assert ran(events) == ["1", "2", "3"]


async def test_a_device_can_be_looked_at(tmp_path: Path):
    async with pool_of(tmp_path) as pool:
        await pool.wait_until(ready)
        (device,) = await pool.devices()
        assert device.type == "cpu" and 0 < device.vram_free <= device.vram_total


async def test_a_picture_is_made_with_previews_and_its_model_can_be_freed(tmp_path: Path):
    workflow = json.loads((EXAMPLES / "text_to_image.json").read_text())
    sampler = next(entry for entry in workflow.values() if entry["class_type"] == "KSampler")
    sampler["inputs"]["steps"] = 2
    async with pool_of(tmp_path) as pool:
        result, events = await told(pool, workflow, previews=True)
        assert result.status == "done" and all(Path(path).is_file() for (path,) in result.files.values())
        assert (await only_worker(pool)).models
        freed = await pool.free(models=True, memory=False)
        assert freed > 1_000_000 and (await only_worker(pool)).models == ()
    pictures = [event.preview for event in events if isinstance(event, NodeProgressed) and event.preview is not None]
    assert pictures and pictures[0].media_type == "image/jpeg" and pictures[0].data.startswith(b"\xff\xd8\xff")
