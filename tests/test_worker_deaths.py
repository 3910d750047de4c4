"""Workers that die, hang, wear out or cannot start: what it costs, what is said, and who comes in their place."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from server.workers.deaths import cause_of, memory_kills
from server.workers.devices import NoDevice, environment
from server.workers.errors import NoWorker, PoolClosed, WorkerDied
from server.workers.messages import JobEvent
from server.workers.options import PoolOptions
from server.workers.pool import PoolStatus, WorkerPool
from server.workers.ticket import OnEvents
from tests.workers import (
    NODES,
    alone,
    begun,
    chain,
    job,
    only_worker,
    pool_of,
    process_of,
    ran,
    ready,
    reused,
    run,
)

pytestmark = pytest.mark.anyio

BROKEN = "from graph.node import node\n\nnode('Broken')(\n"


def signalled(pool: WorkerPool, number: signal.Signals, class_name: str = "Wait") -> OnEvents:
    """Sends the worker a signal when a node of this class begins."""

    def on_events(events: Sequence[JobEvent]) -> None:
        pid = pool.status().workers[0].pid
        if begun(events, class_name) and pid is not None:
            os.kill(pid, number)

    return on_events


def trouble(status: PoolStatus) -> bool:
    return status.workers[0].trouble is not None


async def death(pool: WorkerPool, class_name: str, **inputs: object) -> WorkerDied:
    """What comes of a job that its worker does not survive."""
    with pytest.raises(WorkerDied) as caught:
        await pool.run(job(alone(class_name, **inputs), "deadly"))
    assert caught.value.job_id == "deadly" and caught.value.worker == "cpu/1.1"
    assert (await run(pool, chain())).worker == "cpu/1.2"
    return caught.value


async def test_a_killed_worker_costs_its_job_and_is_replaced(tmp_path: Path):
    async with pool_of(tmp_path) as pool:
        with pytest.raises(WorkerDied, match="worker cpu/1.1 was killed") as caught:
            await pool.run(job(alone("Wait")), signalled(pool, signal.SIGKILL))
        assert caught.value.cause.signal == "SIGKILL"
        result = await run(pool, chain())
        assert result.status == "done" and result.worker == "cpu/1.2"
        assert pool.status().deaths == {"signal": 1}


async def test_the_next_worker_goes_on_where_the_last_one_stopped(tmp_path: Path):
    workflow = chain("TwistSlowly", "Wait", length=5)
    async with pool_of(tmp_path) as pool:
        assert (await pool.run(job(workflow), signalled(pool, signal.SIGTERM))).status == "handed_back"
        events: list[JobEvent] = []
        await pool.run(job(workflow, "again"), cancelling(pool, "again", events))
    assert reused(events) == ["2"] and ran(events) == []


def cancelling(pool: WorkerPool, job_id: str, events: list[JobEvent]) -> OnEvents:
    """Collects events, and cancels the job when it waits."""

    def on_events(told: Sequence[JobEvent]) -> None:
        events.extend(told)
        if begun(told, "Wait"):
            pool.cancel(job_id)

    return on_events


async def test_a_node_that_ends_the_process_is_told_by_its_exit_code(tmp_path: Path):
    async with pool_of(tmp_path) as pool:
        died = await death(pool, "Exit", code=7)
    assert (died.cause.kind, died.cause.exit_code) == ("exit", 7) and "exit code 7" in str(died)


async def test_a_crash_says_where_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", "latentloom.worker.output")
    async with pool_of(tmp_path) as pool:
        died = await death(pool, "Crash")
    assert died.cause.signal == "SIGSEGV" and str(died) == "worker cpu/1.1 crashed (SIGSEGV)"
    assert any("worker_nodes.py" in record.message and "in crash" in record.message for record in caplog.records)


async def test_a_worker_that_hangs_is_killed_and_says_where(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", "latentloom.worker.output")
    async with pool_of(tmp_path, hang_seconds=4.0) as pool:
        died = await death(pool, "Hold")
        assert pool.status().deaths == {"hang": 1}
    assert died.cause.kind == "hang" and "no sign of life for 4 s" in str(died)
    assert any("worker_nodes.py" in record.message and "in hold" in record.message for record in caplog.records)


async def test_a_worker_that_talks_nonsense_is_killed(tmp_path: Path):
    async with pool_of(tmp_path) as pool:
        died = await death(pool, "Babble", words="this is nothing that a worker would say")
        assert pool.status().deaths == {"nonsense": 1}
    assert died.cause.kind == "nonsense"


async def test_a_worker_that_dies_in_the_middle_of_a_word_is_told_by_its_exit_code(tmp_path: Path):
    header = "LLW\x01\x00\x00\x10\x00\x00\x00\x00\x00"
    async with pool_of(tmp_path) as pool:
        died = await death(pool, "Babble", words=header + '[[],{"kind":', leave=True)
    assert died.cause.exit_code == 9


async def test_a_worker_takes_what_its_nodes_started_with_it(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    async with pool_of(tmp_path) as pool:
        # Reading ends when nobody can write to it any more.
        reading = asyncio.create_task(asyncio.to_thread(pipe.read_bytes))
        await death(pool, "LeaveBehind", pipe=str(pipe))
        assert await reading == b""


async def test_a_signal_to_end_is_gentle_and_the_job_is_handed_back(tmp_path: Path):
    async with pool_of(tmp_path) as pool:
        result = await pool.run(job(alone("Wait")), signalled(pool, signal.SIGTERM))
        assert result.status == "handed_back"
        assert (await run(pool, chain())).worker == "cpu/1.2"
        assert pool.status().deaths == {}


async def test_closing_hands_all_jobs_back(tmp_path: Path):
    async with pool_of(tmp_path) as pool:
        running = asyncio.create_task(pool.run(job(alone("Wait"), "running")))
        waiting = asyncio.create_task(pool.run(job(chain())))
        status = await pool.wait_until(lambda status: status.workers[0].job_id == "running" and status.waiting == 1)
    assert (await running).status == (await waiting).status == "handed_back"
    with pytest.raises(PoolClosed):
        await pool.run(job(chain()))
    with pytest.raises(ProcessLookupError):
        os.kill(status.workers[0].pid or 0, 0)


async def test_draining_finishes_all_jobs_first(tmp_path: Path):
    async with pool_of(tmp_path) as pool:
        running = [asyncio.create_task(run(pool, chain(length=length))) for length in range(3)]
        await pool.wait_until(lambda status: status.waiting > 0)
        await pool.drain()
        assert [each.done() for each in running] == [True] * 3
    assert [each.result().status for each in running] == ["done"] * 3


async def test_a_pool_that_is_closed_while_it_starts_leaves_nothing(tmp_path: Path):
    async with pool_of(tmp_path, devices=("cpu", "cpu")) as pool:
        status = await pool.wait_until(lambda status: all(worker.pid for worker in status.workers))
    for worker in status.workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker.pid or 0, 0)


SERVER = """
import asyncio, sys
from pathlib import Path
from tests.workers import alone, job, pool_of

async def main():
    async with pool_of(Path(sys.argv[1]), hang_seconds=2) as pool:
        await pool.run(job(alone(sys.argv[2], pipe=sys.argv[3])))

asyncio.run(main())
"""


@pytest.mark.parametrize("node", ["OpenPipe", "OpenPipeAndHold"])
def test_when_the_server_is_killed_its_workers_end(node: str, tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [sys.executable, "-c", SERVER, str(tmp_path), node, str(pipe)]
    # Opening it waits until a worker has opened it too, and reading until that has ended.
    with subprocess.Popen(command, cwd=NODES.parents[1]) as server, pipe.open("rb") as reading:
        server.kill()
        assert reading.read() == b""


async def test_a_worker_is_replaced_after_so_many_jobs_and_not_before(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", "latentloom.workers")
    async with pool_of(tmp_path, max_jobs=2) as pool:
        workers = [(await run(pool, chain(length=length))).worker for length in range(5)]
        assert workers == ["cpu/1.1"] * 2 + ["cpu/1.2"] * 2 + ["cpu/1.3"]
        assert pool.status().workers[0].replaced == 2 and pool.status().deaths == {}
    assert [record.message for record in caplog.records if record.name == "latentloom.workers"] == [
        "worker cpu/1.1 is replaced: it has run 2 jobs",
        "worker cpu/1.2 is replaced: it has run 2 jobs",
    ]


async def test_a_worker_that_holds_too_much_memory_is_replaced(tmp_path: Path):
    async with pool_of(tmp_path) as pool:
        before = (await only_worker(pool)).rss
    if before is None:
        pytest.skip("this system does not tell how much memory a process holds")
    async with pool_of(tmp_path, max_rss=before + (200 << 20)) as pool:
        results = [await run(pool, alone("Grow", mebibytes=size)) for size in (1, 400, 1)]
    assert [result.worker for result in results] == ["cpu/1.1", "cpu/1.1", "cpu/1.2"]


async def test_own_nodes_that_cannot_be_loaded_give_a_sentence_and_pauses_that_grow(tmp_path: Path):
    own = tmp_path / "own.py"
    own.write_text(BROKEN)
    async with pool_of(tmp_path, {"own_nodes": (NODES, own)}, first_pause=0.01) as pool:
        seen: set[float] = set()
        status = await pool.wait_until(lambda status: seen.add(status.workers[0].pause) or len(seen) > 4)
        assert sorted(seen)[:5] == [0.0, 0.01, 0.02, 0.04, 0.08]
        assert status.workers[0].state == "absent"
        assert status.workers[0].trouble == f"own nodes from {own}: SyntaxError: '(' was never closed (own.py, line 3)"
        with pytest.raises(NoWorker, match="'\\(' was never closed"):
            await pool.describe()
        waiting = asyncio.create_task(run(pool, chain()))
        own.write_text("")
        assert (await waiting).status == "done"
        assert pool.status().workers[0].trouble is None


async def test_a_worker_that_ends_before_it_is_ready_is_quoted(tmp_path: Path):
    own = tmp_path / "own.py"
    own.write_text("import os\nprint('no needles')\nos._exit(4)\n")
    async with pool_of(tmp_path, {"own_nodes": (own,)}) as pool:
        status = await pool.wait_until(trouble)
    said = status.workers[0].trouble
    assert said == "worker cpu/1.1 ended by itself with exit code 4 before it was ready; it said: no needles"


async def test_a_worker_that_is_never_ready_is_given_up(tmp_path: Path):
    own = tmp_path / "own.py"
    own.write_text("from threading import Event\nEvent().wait()\n")
    async with pool_of(tmp_path, {"own_nodes": (own,)}, start_seconds=2.0) as pool:
        status = await pool.wait_until(trouble)
    assert status.workers[0].trouble == "worker cpu/1.1 was not ready after 2 s"


async def test_a_device_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    async with pool_of(tmp_path, devices=("cuda:1", "cpu")) as pool:
        status = await pool.wait_until(lambda status: trouble(status) and status.idle == 1)
        assert "there is no cuda:1: CUDA_VISIBLE_DEVICES allows 1 devices" in str(status.workers[0].trouble)
        assert (await run(pool, chain())).worker == "cpu/2.1"


def test_a_worker_sees_its_own_gpu_alone():
    def visible(device: str, given: str | None) -> str | None:
        return environment(device, {} if given is None else {"CUDA_VISIBLE_DEVICES": given}).get("CUDA_VISIBLE_DEVICES")

    assert visible("cuda:1", None) == "1" and visible("cuda:1", "4,GPU-7") == "GPU-7"
    assert visible("cuda", "4,7") == visible("cpu", "4,7") == visible("auto", "4,7") == "4,7"
    assert visible("cpu", None) is None
    with pytest.raises(NoDevice, match="there is no cuda:2: CUDA_VISIBLE_DEVICES allows 2 devices"):
        visible("cuda:2", "4,7")


@pytest.mark.parametrize(
    "wrong",
    [{"devices": ()}, {"devices": ("gpu",)}, {"hang_seconds": 1.0}, {"max_jobs": 0}],
    ids=lambda wrong: str(wrong),
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, object]):
    with pytest.raises(ValueError, match="device|heartbeats|at least one job"):
        PoolOptions(**wrong)  # pyright: ignore[reportArgumentType]  (which is tested)


def test_a_kill_while_memory_ran_out_is_told_from_others(tmp_path: Path):
    told = tmp_path / "vmstat"
    told.write_text("nr_free_pages 12\noom_kill 3\noom_kill_other 9\n")
    assert memory_kills(told) == 3 and memory_kills(tmp_path / "nothing") == 0
    assert cause_of(-signal.SIGKILL, kills=1).kind == "out_of_memory"
    assert cause_of(-signal.SIGKILL, kills=0).kind == cause_of(-signal.SIGSEGV, kills=1).kind == "signal"
    assert cause_of(-signal.SIGRTMIN - 1, kills=0).signal is not None


async def test_an_idle_worker_that_is_killed_is_replaced(tmp_path: Path):
    async with pool_of(tmp_path) as pool:
        os.kill((await only_worker(pool)).pid or 0, signal.SIGKILL)
        await pool.wait_until(lambda status: status.workers[0].name == "cpu/1.2" and ready(status))
        assert process_of(await run(pool, chain())) == (await only_worker(pool)).pid
