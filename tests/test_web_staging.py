"""Files get their names whole, and no two get the same."""

import errno
import os
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from server.web.files.staging import StagedFile, claim, write_whole
from tests.web_site import put


@pytest.fixture
def hurried() -> Generator[None]:
    """Threads that take turns after every few steps, so that they meet."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(params=["links", "no links"])
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with hard links, and one without, such as exFAT."""

    def refuse(source: Path, path: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if request.param == "no links":
        monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("hurried", "disk")
def test_of_all_who_claim_a_name_at_the_same_time_one_gets_it(tmp_path: Path):
    many = 4
    together = threading.Barrier(many)
    with ThreadPoolExecutor(many) as threads:
        for turn in range(100):
            sources = [put(tmp_path / f"{turn}-{number}", str(number)) for number in range(many)]

            def take(source: Path, name: Path = tmp_path / f"name {turn}") -> bool:
                together.wait()
                return claim(source, name)

            won = list(threads.map(take, sources))
            assert won.count(True) == 1
            assert (tmp_path / f"name {turn}").read_text() == str(won.index(True))
            assert [source.exists() for source in sources] == [not each for each in won]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_on_another_disk_is_brought_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool):
    for name in ("link", "replace"):
        real: Callable[[Path, Path], None] = getattr(os, name)

        def across(source: Path, path: Path, real: Callable[[Path, Path], None] = real) -> None:
            if source.parent.name == "staging":
                raise OSError(errno.EXDEV, "Invalid cross-device link")
            real(source, path)

        monkeypatch.setattr(os, name, across)
    staged = StagedFile.new(tmp_path / "staging")
    staged.append(b"content")
    assert staged.publish(tmp_path / "kept" / "a.txt", overwrite)
    assert (tmp_path / "kept" / "a.txt").read_bytes() == b"content"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.txt"]


def test_what_cannot_be_written_whole_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = put(tmp_path / "a.txt", "before")

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="space"):
        write_whole(path, b"after")
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("a.txt", "before")]
