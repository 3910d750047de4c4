"""What a disk, a person or a kill may do to the disk tier: nothing wrong is ever served, and the run goes on."""

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import pytest

from graph.entry_file import Label, read_label
from graph.store import MemoryStore
from graph.store_index import StoreIndex
from graph.tiered_store import TieredStore
from tests.test_disk_store import PLENTY, entry, has, kept, key, opened, reconcile, totals, warnings

# Damage


@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied", "another's", "longer"])
def test_a_damaged_entry_is_dropped_and_never_served(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture):
    store = kept(tmp_path, "a", "b", "c")
    path = entry(tmp_path, "a")
    content = path.read_bytes()
    path.write_bytes(
        {
            "flipped": content[:-200] + bytes([content[-200] ^ 1]) + content[-199:],
            "cut": content[:-1],
            "emptied": b"",
            "another's": entry(tmp_path, "b").read_bytes(),
            "longer": content + b"\0",
        }[damage]
    )
    assert [has(store, name) for name in "abc"] == [False, True, True]
    assert not path.exists() and len(warnings(caplog)) == 1
    store.put(key("a"), ("a",))
    store.flush()
    assert has(opened(tmp_path), "a") and totals(tmp_path).entries == 3


def test_whatever_is_left_of_an_entry_is_a_miss(tmp_path: Path):
    store = kept(tmp_path, "a")
    path = entry(tmp_path, "a")
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert not has(store, "a") and not path.exists()


def test_whatever_bit_of_an_entry_flips_it_is_a_miss(tmp_path: Path):
    store = kept(tmp_path, "a")
    path = entry(tmp_path, "a")
    content = path.read_bytes()
    for at in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[at // 8] ^= 1 << at % 8
        path.write_bytes(damaged)
        assert not has(store, "a") and not path.exists()


def test_a_deleted_entry_is_a_miss(tmp_path: Path):
    store = kept(tmp_path, "a")
    entry(tmp_path, "a").unlink()
    assert not has(store, "a")


def test_a_folder_that_is_deleted_while_it_is_used_is_begun_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    store = opened(tmp_path)
    for name in "ab":
        store.put(key(name), (name,))
        store.flush()
        assert has(opened(tmp_path), name) and totals(tmp_path).entries == 1
        shutil.rmtree(tmp_path / "store")
        assert not has(store, name)
    assert not warnings(caplog)


def test_a_folder_in_the_place_of_an_entry_is_a_miss(tmp_path: Path):
    entry(tmp_path, "a").mkdir(parents=True)
    assert not has(opened(tmp_path), "a")


def test_entries_outlive_their_index(tmp_path: Path):
    kept(tmp_path, "a", "b").close()
    for file in (tmp_path / "store").glob("index*"):
        file.unlink()
    store = opened(tmp_path)
    assert has(store, "a")
    store.flush(uses=True)
    assert (totals(tmp_path).entries, totals(tmp_path).hits) == (1, 1)
    reconcile(tmp_path)
    assert totals(tmp_path).entries == 2
    assert totals(tmp_path).bytes == sum(path.stat().st_size for path in tmp_path.glob("store/entries/*/*"))


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_index_is_set_aside_with_one_warning(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
):
    kept(tmp_path, "a").close()
    index = tmp_path / "store" / "index.sqlite3"
    index.write_bytes(content)
    store = opened(tmp_path)
    assert has(store, "a")
    store.put(key("b"), ("b",))
    store.flush()
    store.put(key("c"), ("c",))
    store.flush()
    assert totals(tmp_path).entries == 3
    assert len(warnings(caplog)) == 1 and "nothing" not in warnings(caplog)[0]
    assert [path.read_bytes() for path in index.parent.glob("index.damaged-*")] == [content]


def test_an_index_damaged_while_it_is_open_is_begun_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    store = opened(tmp_path)
    for at in range(300):
        store.put(key(at), (at,))
    store.flush()
    with (
        sqlite3.connect(tmp_path / "store" / "index.sqlite3", autocommit=True)
        if sys.version_info >= (3, 12)
        else (sqlite3.connect(tmp_path / "store" / "index.sqlite3", isolation_level=None)) as other
    ):
        other.execute("DROP TABLE entry")
    other.close()
    store.put(key("after"), ("after",))
    store.flush()
    assert len(warnings(caplog)) == 1
    assert has(store, "after") and has(store, 1)


def test_an_orphan_is_found_when_its_shelf_is_looked_through(tmp_path: Path):
    kept(tmp_path, "a", "b").close()
    index = StoreIndex(tmp_path / "store" / "index.sqlite3")
    index.record(lost=[key("a")])
    label = Label(key("gone"), "Make", 1.0, 0.0)
    index.record([(label, 100_000)])
    index.close()
    old = entry(tmp_path, "a").with_name(".dead.tmp")
    old.write_bytes(b"half")
    os.utime(old, (0, 0))
    young = old.with_name(".alive.tmp")
    young.write_bytes(b"half")
    reconcile(tmp_path)
    assert (totals(tmp_path).entries, old.exists(), young.exists()) == (2, False, True)
    assert read_label(entry(tmp_path, "a"))[0].seconds == 0.5


# A disk that refuses


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[None]:
    """Files of this process cannot grow beyond a size, as on a full disk."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 KB, where one may be made."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can make a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_is_full_keeps_what_it_has(
    tiny_disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("graph.store_writer.REST_SECONDS", 0.0)
    store = opened(tiny_disk)
    for at in range(30):
        store.put(key(at), (at, bytes(40_000)), seconds=0.5)
        store.flush()
    assert len(warnings(caplog)) == 1 and "the run goes on" in warnings(caplog)[0]
    found = [at for at in range(30) if has(opened(tiny_disk), at)]
    assert 0 < len(found) < 30 and not list(tiny_disk.glob("store/entries/*/.*"))
    for at in found[1:]:
        entry(tiny_disk, at).unlink()
    store.put(key("after"), ("after", bytes(40_000)), seconds=0.5)
    store.flush()
    assert has(opened(tiny_disk), "after") and has(store, found[0])


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_an_entry_that_the_disk_refuses_half_way_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, reason: int
):
    def refuse(file: BinaryIO, *_: object) -> int:
        file.write(b"half of it")
        raise OSError(reason, os.strerror(reason))

    store = kept(tmp_path, "before")
    with monkeypatch.context() as full:
        full.setattr("graph.store_folder.write_entry", refuse)
        for name in "abc":
            store.put(key(name), (name,))
            store.flush()
    assert len(warnings(caplog)) == 1 and os.strerror(reason) in warnings(caplog)[0]
    assert [has(store, name) for name in ("before", *"abc")] == [True, False, False, False]
    assert not list(tmp_path.glob("store/entries/*/.*"))


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_is_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    store = opened(tmp_path)
    store.put(key("small"), ("small",))
    store.flush()
    for at in range(5):
        store.put(key(at), (at, bytes(400_000)))
        store.flush()
    assert len(warnings(caplog)) == 1 and "the run goes on" in warnings(caplog)[0]
    assert has(store, "small") and not list(tmp_path.glob("store/entries/*/.*"))


@pytest.mark.parametrize("obstacle", ["store", "store/index.sqlite3", "store/entries"])
def test_a_place_that_cannot_be_written_is_warned_of_once(
    tmp_path: Path, obstacle: str, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / obstacle
    if path.name == "index.sqlite3":
        path.mkdir(parents=True)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a file")
    memory = MemoryStore(PLENTY)
    store = TieredStore(memory, opened(tmp_path))
    for at in range(3):
        store.put(key(at), (at,), seconds=1)
        store.flush()
    assert len(warnings(caplog)) == 1
    assert store.get(key(1)) == (1,)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may look into. Those of pytest are closed again by whatever pytest starts next."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_read_only_store_can_be_read(open_folder: Path):
    program = (
        "import os, sys; from pathlib import Path; from tests.test_disk_store import opened, key\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        f"store = opened(Path({str(open_folder)!r}))\n"
        "assert store.get(key('a'))[0] == 'a'\n"
        "store.put(key('b'), ('b',)); store.put(key('c'), ('c',)); store.flush()\n"
    )
    kept(open_folder, "a").close()
    paths = [open_folder / "store", *(open_folder / "store").rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    for path in paths:
        path.chmod(0o755)
    assert said.returncode == 0, said.stderr
    assert said.stderr.count("the run goes on") == 1


# A kill


def test_what_a_killed_writer_leaves_is_no_result_and_is_cleared_away(tmp_path: Path):
    program = (
        "from pathlib import Path; from tests.test_disk_store import opened, key\n"
        f"store = opened(Path({str(tmp_path)!r}))\n"
        "while True: store.put(key('a'), ('a', bytes(30_000_000)))\n"
    )
    left: list[Path] = []
    while not left:  # it may have been between two files
        with subprocess.Popen([sys.executable, "-c", program]) as process:
            while not list(tmp_path.glob("store/entries/*/.*")):
                assert process.poll() is None
            process.kill()
        left = list(tmp_path.glob("store/entries/*/.*"))
    reconcile(tmp_path)
    assert all(path.exists() for path in left)
    for path in left:
        os.utime(path, (0, 0))
    reconcile(tmp_path)
    assert not any(path.exists() for path in left)
    has(opened(tmp_path), "a")


@pytest.mark.parametrize("size", [100, 2_000_000])
def test_a_kill_loses_one_dear_result_at_most(tmp_path: Path, size: int):
    program = (
        "from pathlib import Path; from tests.test_disk_store import opened, key\n"
        f"store = opened(Path({str(tmp_path)!r}))\n"
        "for at in range(10**9):\n"
        f"    store.put(key(at), (at, bytes({size})), seconds=0.01)\n"
        "    print(at, flush=True)\n"
    )
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            put = [int(process.stdout.readline()) for _ in range(30)]
            process.kill()
            put += [int(line) for line in process.stdout if line.endswith("\n")]
        store = opened(tmp_path)
        assert all(has(store, at) for at in put[:-1])
        for path in (tmp_path / "store").glob("entries/*/*.safetensors"):
            path.unlink()
