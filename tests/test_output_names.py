import errno
import multiprocessing
import os
import pickle
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.file_errors import OutputError
from nodes.output_names import fill_in_batch_number, next_number, place_output, write_atomically


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_variables_are_filled_in(tmp_path: Path):
    now = datetime(2026, 3, 4, 5, 6, 7)
    prefix = "%year%-%month%-%day%/%hour%%minute%%second%_%width%x%height%_%batch_num%"
    place = place_output(tmp_path, prefix, 64, 48, now)
    assert place == (tmp_path / "2026-03-04", "2026-03-04", "050607_64x48_%batch_num%")
    assert fill_in_batch_number(place.prefix, 3) == "050607_64x48_3"


@pytest.mark.parametrize(
    ("prefix", "subfolder", "name"),
    [("ComfyUI", "", "ComfyUI"), ("a/b/c", "a/b", "c"), ("a/../b", "", "b"), ("a/", "", "a"), ("", "", "ComfyUI")],
)
def test_a_prefix_is_a_subfolder_and_a_name(tmp_path: Path, prefix: str, subfolder: str, name: str):
    assert place_output(tmp_path, prefix) == (tmp_path / subfolder, subfolder, name)


@pytest.mark.parametrize("prefix", ["../a", "a/../../b", "..", "/etc/passwd", ".", "a/.."])
def test_leaving_the_output_folder_is_refused(tmp_path: Path, prefix: str):
    with pytest.raises(OutputError, match="only saved inside"):
        place_output(tmp_path, prefix)


def test_a_folder_whose_name_merely_begins_alike_is_outside(tmp_path: Path):
    with pytest.raises(OutputError):
        place_output(tmp_path / "out", "../output/a")


def test_counting_continues_after_the_highest_number(tmp_path: Path):
    for name in ("a_00002_.png", "a_7_.latent", "a_12", "a_x_.png", "ab_00050_.png", "b_99_.png", "a_00003.png"):
        (tmp_path / name).touch()
    assert next_number(tmp_path, "a") == 13
    assert next_number(tmp_path, "a_x") == 1
    assert next_number(tmp_path / "none", "a") == 1


def test_files_are_numbered_and_folders_made(tmp_path: Path):
    folder = tmp_path / "x" / "y"
    assert write_atomically(folder, "a", ".png", b"1") == folder / "a_00001_.png"
    assert write_atomically(folder, "a", ".png", b"2") == folder / "a_00002_.png"
    assert names(folder) == ["a_00001_.png", "a_00002_.png"]
    assert (folder / "a_00002_.png").read_bytes() == b"2"


def test_a_taken_number_is_never_overwritten(tmp_path: Path):
    (tmp_path / "a_00004_.png").write_bytes(b"old")
    (tmp_path / "a_00005_.png").symlink_to("nowhere")
    assert write_atomically(tmp_path, "a", ".png", b"new", first=4).name == "a_00006_.png"
    assert (tmp_path / "a_00004_.png").read_bytes() == b"old"


def test_files_get_the_usual_permissions(tmp_path: Path):
    (tmp_path / "plain").touch()
    written = write_atomically(tmp_path, "a", ".png", b"1")
    assert written.stat().st_mode == (tmp_path / "plain").stat().st_mode


def refuse_links(*_paths: Path) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_file_systems_without_hard_links_do_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "link", refuse_links)
    (tmp_path / "a_00001_.png").write_bytes(b"old")
    assert write_atomically(tmp_path, "a", ".png", b"1", first=1).name == "a_00002_.png"
    assert names(tmp_path) == ["a_00001_.png", "a_00002_.png"]
    assert (tmp_path / "a_00001_.png").read_bytes() == b"old"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 200), unique=True, max_size=8), st.integers(1, 4))
def test_new_numbers_come_after_all_old_ones(tmp_path_factory: pytest.TempPathFactory, taken: list[int], saved: int):
    folder = tmp_path_factory.mktemp("out")
    for number in taken:
        (folder / f"a_{number:05}_.png").touch()
    written = [write_atomically(folder, "a", ".png", b"x").name for _ in range(saved)]
    start = max(taken, default=0) + 1
    assert written == [f"a_{number:05}_.png" for number in range(start, start + saved)]


def save_many(folder: Path, name: bytes, times: int, linkless: bool) -> None:
    if linkless:
        os.link = refuse_links
    for _ in range(times):
        write_atomically(folder, "a", ".png", name * 100_000)


@pytest.mark.parametrize("linkless", [False, True])
def test_two_processes_saving_at_once_write_distinct_complete_files(tmp_path: Path, linkless: bool):
    start = multiprocessing.get_context("spawn")
    workers = [start.Process(target=save_many, args=(tmp_path, name, 25, linkless)) for name in (b"x", b"y")]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        assert {path.stat().st_size for path in tmp_path.glob("a_*.png")} <= {100_000}
    assert [worker.exitcode for worker in workers] == [0, 0]
    contents = [path.read_bytes() for path in tmp_path.iterdir()]
    assert sorted(contents) == [b"x" * 100_000] * 25 + [b"y" * 100_000] * 25


def test_killed_while_saving_leaves_nothing_under_a_final_name(tmp_path: Path):
    start = multiprocessing.get_context("spawn")
    worker = start.Process(target=save_many, args=(tmp_path, b"x", 1_000_000, False))
    worker.start()
    while not list(tmp_path.glob("a_*.png")):
        assert worker.is_alive()
    worker.kill()
    worker.join()
    assert {path.stat().st_size for path in tmp_path.glob("a_*.png")} == {100_000}
    assert write_atomically(tmp_path, "a", ".png", b"next").read_bytes() == b"next"


def test_a_file_in_the_way_of_the_folder_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="a file is in the way") as raised:
            write_atomically(folder, "a", ".png", b"1")
        assert raised.value.path == folder


def test_names_the_file_system_refuses_are_explained(tmp_path: Path):
    with pytest.raises(OutputError, match="too long. Shorten filename_prefix"):
        write_atomically(tmp_path, "a" * 300, ".png", b"1")
    with pytest.raises(OutputError, match="Change filename_prefix"):
        write_atomically(tmp_path, "a\0b", ".png", b"1")
    assert names(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_explained(tmp_path: Path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="may not be written to"):
        write_atomically(tmp_path, "a", ".png", b"1")


def test_a_full_disk_is_explained_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="disk is full. Free some space") as raised:
        write_atomically(tmp_path, "a", ".png", b"1")
    assert names(tmp_path) == []
    assert isinstance(raised.value, OSError)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
