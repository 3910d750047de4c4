import logging
import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from graph.disk_store import DiskStore
from graph.keys import Key
from graph.store import MemoryStore
from graph.store_folder import StoreFolder
from graph.store_index import BLOCK, READING, StoreIndex
from graph.store_keeper import StoreKeeper
from graph.tiered_store import TieredStore
from nodes.codecs import CODEC
from nodes.values import Image

PLENTY = 1 << 30


def key(name: object) -> Key:
    return blake2b(str(name).encode(), digest_size=32).digest()


def picture(seed: int = 0, side: int = 4) -> tuple[Image]:
    import torch

    return (Image(torch.rand(1, side, side, 3, generator=torch.Generator().manual_seed(seed))),)


def opened(folder: Path, max_bytes: int = PLENTY) -> DiskStore:
    return DiskStore(folder / "store", max_bytes, CODEC)


def kept(folder: Path, *names: object, max_bytes: int = PLENTY) -> DiskStore:
    """A store that was filled by another one."""
    store = opened(folder, max_bytes)
    for name in names:
        store.put(key(name), (name, bytes(400)), class_name="Make", seconds=0.5)
    store.close()
    return opened(folder, max_bytes)


def entry(folder: Path, name: object) -> Path:
    return StoreFolder(folder / "store").path(key(name))


def has(store: DiskStore, name: object) -> bool:
    """Whether a store has an entry; it must be the right one."""
    outputs = store.get(key(name))
    assert outputs is None or outputs[0] == name
    return outputs is not None


def totals(folder: Path) -> Any:
    index = StoreIndex(folder / "store" / "index.sqlite3")
    found = index.totals()
    index.close()
    return found


def reconcile(folder: Path) -> None:
    """Look through all shelves, as a long run does one by one."""
    with closing(StoreKeeper(StoreFolder(folder / "store"), PLENTY)) as keeper:
        keeper.reconcile_all()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_what_one_store_keeps_another_finds(tmp_path: Path):
    store = kept(tmp_path, "a", "b")
    assert [has(store, name) for name in "abc"] == [True, True, False]
    store.flush(uses=True)
    assert (totals(tmp_path).entries, totals(tmp_path).hits, totals(tmp_path).misses) == (2, 2, 1)


def test_what_is_not_written_yet_is_found_too(tmp_path: Path):
    store = opened(tmp_path)
    for at in range(200):
        store.put(key(at), (at,))
        assert store.get(key(at)) == (at,)


def test_the_end_of_a_process_writes_what_is_left(tmp_path: Path):
    program = (
        "from pathlib import Path; from tests.test_disk_store import opened, key\n"
        f"store = opened(Path({str(tmp_path)!r}))\n"
        "for at in range(300): store.put(key(at), (at,), seconds=1)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    store = opened(tmp_path)
    assert all(has(store, at) for at in range(300))


def test_a_value_without_a_codec_is_not_kept_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "latentloom.store")
    store = opened(tmp_path)
    for at in range(3):
        store.put(key(at), (object(),))
    store.put(key("good"), ("good",))
    store.flush()
    assert [record.getMessage() for record in caplog.records] == [
        "builtins.object cannot be kept on disk: its type has no codec; results with it are kept in memory alone"
    ]
    assert has(opened(tmp_path), "good") and not entry(tmp_path, 1).exists()


# Room


def test_what_is_larger_than_the_store_is_not_kept(tmp_path: Path):
    store = kept(tmp_path, "small", max_bytes=3000)
    store.put(key("large"), ("large", bytes(4000)))
    store.flush()
    assert has(store, "small") and not has(opened(tmp_path), "large")


def test_what_was_cheap_for_its_size_goes_first(tmp_path: Path):
    store = opened(tmp_path, 300_000)
    for name, side, seconds in [("dear", 80, 9.0), ("cheap", 80, 0.1), ("small", 4, 0.1), ("new", 80, 1.0)]:
        store.put(key(name), (name, bytes(side * side * 16)), seconds=seconds)
        store.flush()
    assert [has(store, name) for name in ("dear", "cheap", "small", "new")] == [True, False, True, True]


def test_what_is_used_stays_and_what_nobody_uses_goes_in_the_end(tmp_path: Path):
    store = opened(tmp_path, 320_000)
    store.put(key("old and dear"), ("old and dear", bytes(100_000)), seconds=2)
    store.put(key("used"), ("used", bytes(100_000)), seconds=1)
    for at in range(12):
        store.put(key(at), (at, bytes(100_000)), seconds=1)
        store.flush()
        assert has(store, "used")
    assert not has(store, "old and dear")


class AgainstAModel(RuleBasedStateMachine):
    """A store with room for a few entries, against a dict with the formula of its docstring."""

    folder: Path
    ROOM = 20_000

    @initialize()
    def begin(self) -> None:
        self.root = self.folder / str(time.monotonic_ns())
        self.store = opened(self.root, self.ROOM)
        self.model: dict[int, tuple[int, float, int, float]] = {}
        self.floor = 0.0

    @rule(name=st.integers(0, 9), size=st.integers(0, 800), cost=st.integers(0, 50))
    def put(self, name: int, size: int, cost: int) -> None:
        # Each cost once, so that no two entries are worth the same.
        seconds = cost + name / 10
        self.store.put(key(name), (name, bytes(4 * size)), seconds=seconds)
        self.store.flush()
        nbytes = self._written(name, size, seconds)
        hits = self.model[name][2] if name in self.model else 0
        worth = self._worth(seconds, 0, nbytes)
        self.model[name] = (nbytes, seconds, hits, max(worth, self.model[name][3]) if name in self.model else worth)
        while sum(held[0] for held in self.model.values()) > self.ROOM:
            least = min(self.model, key=lambda each: self.model[each][3])
            self.floor = max(self.floor, self.model.pop(least)[3])

    def _written(self, name: int, size: int, seconds: float) -> int:
        lone = DiskStore(self.root / "lone", PLENTY, CODEC)
        lone.put(key(name), (name, bytes(4 * size)), seconds=seconds)
        lone.close()
        return lone.folder.path(key(name)).stat().st_size

    def _worth(self, seconds: float, hits: int, nbytes: int) -> float:
        return self.floor + (seconds + READING) * (hits + 1) / (nbytes + BLOCK)

    @rule(name=st.integers(0, 9))
    def get(self, name: int) -> None:
        assert has(self.store, name) == (name in self.model)
        self.store.flush(uses=True)
        if name in self.model:
            nbytes, seconds, hits, _ = self.model[name]
            self.model[name] = (nbytes, seconds, hits + 1, self._worth(seconds, hits + 1, nbytes))

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = opened(self.root, self.ROOM)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        path = self.store.folder.path(key(name))
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
        assert not has(self.store, name)
        self.store.flush(uses=True)
        del self.model[name]

    @invariant()
    def the_index_and_the_files_agree(self) -> None:
        files = sorted(path.stat().st_size for path in self.store.folder.root.glob("entries/*/*"))
        assert files == sorted(held[0] for held in self.model.values())
        assert sum(files) <= self.ROOM

    def teardown(self) -> None:
        self.store.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestWarning")
def test_a_store_is_a_dict_with_a_bound(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.CRITICAL)
    machine = type("Machine", (AgainstAModel,), {"folder": tmp_path})
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(machine, settings=settings(max_examples=25, stateful_step_count=25, deadline=None))


# Many at once


def _work(folder: Path, seed: int, rounds: int) -> None:
    """Write and read the same forty entries as everybody else, in a store with room for half of them."""
    store = opened(folder, 100_000)
    chance = random.Random(seed)
    for _ in range(rounds):
        name = chance.randrange(40)
        if not has(store, name):
            store.put(key(name), (name, bytes([name]) * 4000), seconds=chance.random())
        if chance.random() < 0.05:
            store.flush()
    store.close()


def test_processes_share_a_store_though_some_are_killed(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_work, args=(tmp_path, seed, 300)) for seed in range(3)]
    victims = [context.Process(target=_work, args=(tmp_path, seed, 10**9)) for seed in range(3, 5)]
    for process in (*workers, *victims):
        process.start()
    while not list(tmp_path.glob("store/entries/*/*.safetensors")):
        time.sleep(0.01)
    for victim in victims:
        time.sleep(0.3)
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
    for process in (*workers, *victims):
        process.join()
    assert [process.exitcode for process in workers] == [0, 0, 0]
    _work(tmp_path, 9, 100)
    assert not warnings(caplog)
    with closing(sqlite3.connect(tmp_path / "store" / "index.sqlite3")) as index:
        assert index.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert index.execute("SELECT sum(bytes) FROM entry").fetchone() == (totals(tmp_path).bytes,)
    assert 0 < totals(tmp_path).bytes <= 100_000


def test_two_processes_that_write_one_result_do_not_mix_it(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    program = (
        "import sys; from pathlib import Path; from tests.test_disk_store import opened, key\n"
        f"store = opened(Path({str(tmp_path)!r}))\n"
        "for _ in range(100):\n"
        "    store.put(key('a'), (sys.argv[1].encode() * 700_000,))\n"
        "    store.flush()\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, letter]) for letter in "xy"]
    store = opened(tmp_path)
    seen: list[set[int]] = []
    while any(writer.poll() is None for writer in writers):
        outputs: Any = store.get(key("a"))
        seen += [set(outputs[0])] if outputs is not None else []
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen and all(len(letters) == 1 for letters in seen) and not warnings(caplog)


def test_threads_share_a_store(tmp_path: Path):
    store = opened(tmp_path, 100_000)

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(100):
            name = chance.randrange(40)
            if not has(store, name):
                store.put(key(name), (name, bytes([name]) * 4000), seconds=0.02)

    threads = [Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.flush()
    assert totals(tmp_path).bytes <= 100_000


def test_a_store_of_100000_entries_is_opened_without_looking_through_it(tmp_path: Path):
    kept(tmp_path, "a").close()
    with closing(sqlite3.connect(tmp_path / "store" / "index.sqlite3")) as index, index:
        index.execute(
            "WITH RECURSIVE row(at) AS (SELECT 1 UNION ALL SELECT at + 1 FROM row WHERE at < 100000) "
            "INSERT INTO entry SELECT randomblob(32), 'Make', 1000, 0.1, 0, 0, 0, 0 FROM row"
        )
    program = (
        "import sys; from pathlib import Path; from tests.test_disk_store import opened, key\n"
        "listed = []\n"
        "sys.addaudithook(lambda event, given: event in ('os.listdir', 'os.scandir') and listed.append(given))\n"
        f"store = opened(Path({str(tmp_path)!r}))\n"
        "assert store.get(key('a')) and not store.get(key('b'))\n"
        "store.flush()\n"
        "assert not listed, listed\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert totals(tmp_path).entries == 100_001


# Two tiers


def test_memory_stands_in_front_of_the_disk(tmp_path: Path):
    kept(tmp_path, "a").close()
    memory = MemoryStore(PLENTY)
    store = TieredStore(memory, opened(tmp_path))
    first = store.get(key("a"))
    assert first is not None and store.get(key("a")) is first
    store.put(key("b"), ("b",), class_name="Make", seconds=1)
    store.flush()
    assert has(opened(tmp_path), "b") and memory.get(key("b")) == ("b",)
    assert store.get(key("c")) is None


def test_what_is_made_again_at_once_stays_in_memory(tmp_path: Path):
    store = TieredStore(MemoryStore(PLENTY), opened(tmp_path))
    store.put(key("quick"), ("quick",), seconds=store.least_seconds / 2)
    store.put(key("slow"), ("slow",), seconds=store.least_seconds)
    store.flush()
    assert store.get(key("quick")) == ("quick",)
    assert [has(opened(tmp_path), name) for name in ("quick", "slow")] == [False, True]


def test_what_memory_lets_go_the_disk_still_has(tmp_path: Path):
    import torch

    store = TieredStore(MemoryStore(0), opened(tmp_path))
    for at in range(10):
        store.put(key(at), picture(at), seconds=1)
    for at in range(10):
        found: Any = store.get(key(at))
        assert torch.equal(found[0].pixels, picture(at)[0].pixels)
