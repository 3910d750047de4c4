"""What the nodes are: described by workers, remembered on disk, and as new as the files they are made of."""

import asyncio
import json
from pathlib import Path

import pytest
import torch

from server.workers.pool import WorkerPool
from tests.pickle_files import pickled
from tests.workers import alone, chain, job, only_worker, pool_of, run, shown, use

pytestmark = pytest.mark.anyio

OWN = """
from dataclasses import dataclass
from graph.node import node
from graph.values import Ui

@dataclass(frozen=True)
class Said(Ui):
    def to_json(self):
        return {{"text": ["{word}"]}}

@node("{name}", impure=True)
def say() -> Said:
    return Said()
"""


def own(data: Path, name: str, word: str = "a word") -> Path:
    """A file with a node of somebody's own, in the folder for them."""
    path = data / "nodes" / f"{name.lower()}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(OWN.format(name=name, word=word))
    return path


async def remembered(data: Path) -> Path:
    """The file in which a pool that has ended keeps what it knew."""
    async with pool_of(data) as pool:
        await pool.describe()
    return data / "cache" / "object_info.json"


async def described(pool: WorkerPool) -> set[str]:
    return set((await pool.describe(wait=100)).nodes)


async def test_all_nodes_are_described(tmp_path: Path):
    own(tmp_path, "Mine")
    async with pool_of(tmp_path) as pool:
        description = await pool.describe()
        assert {"KSampler", "Spin", "Mine"} <= set(description.nodes)
        assert description.nodes["Twist"]["input"]["required"] == {"yarn": ["YARN"]}
        assert (await pool.describe()).etag == description.etag


async def test_new_files_are_there_to_choose_at_once(tmp_path: Path):
    async with pool_of(tmp_path) as pool:
        before = await pool.describe()
        (tmp_path / "input").mkdir()
        (tmp_path / "input" / "new.png").touch()
        after = await pool.describe(wait=100)
    assert "new.png" not in str(before.nodes["LoadImage"]) and "new.png" in str(after.nodes["LoadImage"])
    assert before.etag != after.etag


async def test_new_own_nodes_are_described_and_run(tmp_path: Path):
    async with pool_of(tmp_path) as pool:
        assert "Mine" not in await described(pool)
        own(tmp_path, "Mine")
        assert "Mine" in await described(pool)
        assert shown(await run(pool, {"1": use("Mine")}), "1") == "a word"
        assert (await only_worker(pool)).name == "cpu/1.2"


async def test_a_job_is_finished_by_the_nodes_it_was_begun_with(tmp_path: Path):
    async with pool_of(tmp_path) as pool:
        running = asyncio.create_task(pool.run(job(alone("Wait"), "long")))
        await pool.wait_until(lambda status: status.workers[0].job_id == "long")
        own(tmp_path, "Mine")
        assert "Mine" in await described(pool)
        worker = pool.status().workers[0]
        assert (worker.name, worker.job_id) == ("cpu/1.1", "long")
        waiting = asyncio.create_task(run(pool, {"1": use("Mine")}))
        pool.cancel("long")
        assert (await running).worker == "cpu/1.1" and (await waiting).worker == "cpu/1.2"


async def test_changed_own_nodes_run_as_they_are_now(tmp_path: Path):
    own(tmp_path, "Mine")
    async with pool_of(tmp_path) as pool:
        assert shown(await run(pool, {"1": use("Mine")}), "1") == "a word"
        own(tmp_path, "Mine", "another word")
        await described(pool)
        assert shown(await run(pool, {"1": use("Mine")}), "1") == "another word"


async def test_own_nodes_that_break_leave_everything_as_it_was(tmp_path: Path):
    path = own(tmp_path, "Mine")
    async with pool_of(tmp_path) as pool:
        before = await pool.describe()
        path.write_text("this is no Python")
        assert (await pool.describe(wait=100)).etag == before.etag
        assert shown(await run(pool, {"1": use("Mine")}), "1") == "a word"
        worker = await only_worker(pool)
        assert worker.name == "cpu/1.1" and "invalid syntax" in str(worker.trouble)
        own(tmp_path, "Mine", "a mended word")
        await described(pool)
        assert shown(await run(pool, {"1": use("Mine")}), "1") == "a mended word"
        assert (await only_worker(pool)).trouble is None


async def test_a_new_server_describes_the_nodes_before_it_has_a_worker(tmp_path: Path):
    await remembered(tmp_path)
    async with pool_of(tmp_path) as pool:
        description = await pool.describe(wait=0)
        assert pool.status().workers[0].state in ("absent", "starting") and "Spin" in description.nodes


async def test_what_is_remembered_of_other_nodes_does_not_count(tmp_path: Path):
    await remembered(tmp_path)
    own(tmp_path, "Mine")
    async with pool_of(tmp_path) as pool:
        assert "Mine" in (await pool.describe(wait=0)).nodes


@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "folder"])
async def test_what_cannot_be_remembered_is_asked_again(damage: str, tmp_path: Path):
    path = await remembered(tmp_path)
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "gone":
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    async with pool_of(tmp_path) as pool:
        assert "Spin" in (await pool.describe(wait=0)).nodes
        assert (await run(pool, chain())).status == "done"
    assert json.loads(content.partition(b"\n")[2])["Spin"]["name"] == "Spin"


async def test_many_who_ask_at_once_get_the_same_answer(tmp_path: Path):
    async with pool_of(tmp_path) as pool:
        answers = await asyncio.gather(*(pool.describe(wait=100) for _ in range(50)))
    assert len({id(answer) for answer in answers}) <= 2


async def test_a_node_that_cannot_be_described_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = own(tmp_path, "Mine")
    path.write_text(
        path.read_text()
        + """
from typing import Annotated

class Broken:
    def names(self, folders):
        raise LookupError("no names")
    def locate(self, folders, name):
        raise LookupError("no names")

@node("Nameless", impure=True)
def nameless(name: Annotated[str, Broken()]) -> Said:
    return Said()
"""
    )
    async with pool_of(tmp_path) as pool:
        nodes = await described(pool)
    assert "Mine" in nodes and "Nameless" not in nodes
    assert any("Nameless cannot be described" in record.message for record in caplog.records)


async def test_models_in_pickles_are_offered_and_read_by_workers_that_may(tmp_path: Path):
    pickled(tmp_path / "models" / "upscale_models" / "old.pth", {"params": {"a": torch.ones(2)}})
    async with pool_of(tmp_path) as pool:
        assert "old.pth" not in str((await pool.describe()).nodes["UpscaleModelLoader"])
    async with pool_of(tmp_path, {"allow_pickle": True}) as pool:
        assert "old.pth" in str((await pool.describe()).nodes["UpscaleModelLoader"])
        workflow = {"1": use("UpscaleModelLoader", model_name="old.pth"), "2": use("PreviewAny", source=["1", 0])}
        result = await run(pool, workflow)
    assert "no upscale model that is known here; it holds a" in str(result.failures)
