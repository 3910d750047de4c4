import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier, Thread

import pytest

from graph.disk_store import DiskStore
from graph.leases import Leases
from graph.store import FREE, Claim, MemoryStore
from graph.tiered_store import TieredStore
from tests.test_disk_store import PLENTY, key, opened

SERVANT = """
import sys
from pathlib import Path
from tests.test_disk_store import key, opened

store, claims = opened(Path(sys.argv[1])), {}
for line in sys.stdin:
    verb, name = line.split()
    if verb == "claim":
        claim = store.claim(key(name))
        if claim is not None:
            claims[name] = claim
        answer = claim is not None
    elif verb == "get":
        answer = store.get(key(name)) is not None
    elif verb == "put":
        answer = store.put(key(name), (name, bytes(4_000_000)), seconds=1)
    else:
        answer = claims.pop(name).release()
    print(answer, flush=True)
"""


class Peer:
    """Another process that has opened the same store and does what it is told."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVANT, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, words: str) -> bool:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline() == "True\n"

    def end(self) -> None:
        with self.process:
            self.process.kill()


@pytest.fixture
def peers(tmp_path: Path) -> Iterator[tuple[Peer, Peer]]:
    pair = Peer(tmp_path), Peer(tmp_path)
    yield pair
    for peer in pair:
        peer.end()


def claimed(store: DiskStore, name: str) -> Claim:
    claim = store.claim(key(name))
    assert claim is not None and claim is not FREE
    return claim


def test_of_two_processes_one_gets_the_right(peers: tuple[Peer, Peer]):
    one, other = peers
    assert one("claim a") and not other("claim a")
    assert other("claim b") and not one("claim b")
    one("release a")
    assert other("claim a")


def test_the_right_of_a_process_ends_with_its_death(tmp_path: Path, peers: tuple[Peer, Peer]):
    one, other = peers
    assert one("claim a") and not other("claim a")
    os.kill(one.process.pid, signal.SIGKILL)
    one.process.wait()
    assert other("claim a")
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["leases"]
    assert (tmp_path / "store" / "leases").stat().st_size == 0


def test_whoever_gets_a_right_after_another_finds_what_was_put(peers: tuple[Peer, Peer]):
    one, other = peers
    for name in "abcdefgh":
        assert one(f"claim {name}")
        one(f"put {name}")
        one(f"release {name}")
        assert any(other(f"claim {name}") for _ in range(100_000))
        assert other(f"get {name}")


def test_stores_of_one_process_exclude_each_other(tmp_path: Path, peers: tuple[Peer, Peer]):
    (tmp_path / "alias").symlink_to(tmp_path)
    one, other = opened(tmp_path), opened(tmp_path / "alias")
    claim = claimed(one, "a")
    assert other.claim(key("a")) is None
    other_claim = claimed(other, "b")
    other.close()
    del other
    assert not peers[0]("claim a") and not peers[0]("claim b")
    claim.release()
    other_claim.release()
    assert peers[0]("claim a") and peers[0]("claim b")


def test_of_many_threads_one_gets_the_right(tmp_path: Path):
    stores, begin, granted = [opened(tmp_path) for _ in range(4)], Barrier(8), list[int]()

    def work(at: int) -> None:
        begin.wait()
        granted.extend(number for number in range(300) if stores[at % 4].claim(key(number)))

    threads = [Thread(target=work, args=(at,)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(granted) == list(range(300))


def test_a_right_is_let_go_only_once(tmp_path: Path):
    store = opened(tmp_path)
    first = claimed(store, "a")
    first.release()
    claimed(store, "a")
    first.release()
    assert store.claim(key("a")) is None


def test_a_child_does_not_inherit_rights(tmp_path: Path):
    program = (
        "import os; from pathlib import Path; from tests.test_disk_store import opened, key\n"
        f"store = opened(Path({str(tmp_path)!r}))\n"
        "claim = store.claim(key('a'))\n"
        "if not (child := os.fork()):\n"
        "    taken = store.claim(key('a'))\n"
        "    claim.release()\n"
        "    os._exit(taken is not None)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "if not (child := os.fork()):\n"
        "    os._exit(store.claim(key('a')) is not None)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_cannot_be_written_holds_no_right_for_ever(tmp_path: Path):
    store = opened(tmp_path)
    for outputs in [(object(),), (bytes(PLENTY),), ("good",)]:
        claim = claimed(store, "a")
        store.put(key("a"), outputs)
        claim.release()
        store.flush()
        claimed(store, "a").release()


@pytest.mark.parametrize("obstacle", ["store/index.sqlite3", "store/entries"])
def test_a_disk_that_refuses_leaves_no_right_behind(tmp_path: Path, obstacle: str):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "leases").touch()
    (tmp_path / obstacle).symlink_to("/dev/null/nowhere")
    store = opened(tmp_path)
    for _ in range(2):
        claim = claimed(store, "a")
        store.put(key("a"), ("a",))
        claim.release()
        store.flush()
    claimed(store, "a")


def test_the_end_of_a_store_lets_go_after_writing(tmp_path: Path):
    store = opened(tmp_path)
    claim = claimed(store, "a")
    store.put(key("a"), ("a", bytes(1000)))
    claim.release()
    late = claimed(store, "b")
    store.close()
    late.release()
    other = opened(tmp_path)
    claimed(other, "a")
    claimed(other, "b")
    assert other.get(key("a"))


def test_leases_are_made_anew_where_their_folder_was_deleted(tmp_path: Path, peers: tuple[Peer, Peer]):
    leases = Leases(tmp_path / "store" / "leases")
    old = leases.claim(key("a"))
    assert old is not None
    (tmp_path / "store" / "leases").unlink()
    (tmp_path / "store").rmdir()
    assert leases.claim(key("a")) is not None
    assert not peers[0]("claim a")
    old.release()
    assert not peers[0]("claim a") and peers[0]("claim b")


def test_where_no_file_can_be_written_everybody_may_compute(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "latentloom.store")
    (tmp_path / "store").write_text("a file")
    store = opened(tmp_path)
    assert store.claim(key("a")) is store.claim(key("a")) is FREE
    assert len(caplog.records) == 1


def test_memory_alone_grants_everything(tmp_path: Path):
    store = MemoryStore(PLENTY)
    assert store.claim(key("a")) is store.claim(key("a")) is FREE


def test_two_tiers_claim_where_others_see_it(tmp_path: Path):
    tiered, disk = TieredStore(MemoryStore(PLENTY), opened(tmp_path)), opened(tmp_path)
    claim = tiered.claim(key("a"))
    assert claim is not None and disk.claim(key("a")) is None
    claim.release()
    assert disk.claim(key("a")) is not None


def test_a_store_that_is_collected_while_its_results_are_written_lets_go(tmp_path: Path):
    store = opened(tmp_path)
    for at in range(50):
        claim = claimed(store, str(at))
        store.put(key(at), (at, bytes(100_000)), seconds=1)
        claim.release()
    del store
    other = opened(tmp_path)
    assert all(other.claim(key(at)) and other.get(key(at)) for at in range(50))
