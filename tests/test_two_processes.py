"""Two processes that need the same result at the same time."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands import process, saved

NODES = """
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graph.node import node
from graph.values import Ui, Value

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Box(Value, kind="BOX"):
    content: str


@dataclass(frozen=True)
class Shown(Ui):
    text: str


@node("Pack")
def pack() -> Box:
    with open(HERE / "packed", "a") as book:
        print(os.getpid(), file=book, flush=True)
    while not (HERE / "go").exists():
        time.sleep(0.01)
    return Box("the content")


@node("Open")
def open_box(box: Box) -> Shown:
    (HERE / f"opened {os.getpid()}").write_text(box.content)
    return Shown(box.content)
"""
DOCUMENT: dict[str, Any] = {
    "box": {"class_type": "Pack", "inputs": {}},
    "open": {"class_type": "Open", "inputs": {"box": ["box", 0]}},
}
PATIENCE = 60


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("killed", [False, True])
def test_one_makes_it_and_if_that_one_is_killed_the_other(tmp_path: Path, killed: bool):
    (tmp_path / "own.py").write_text(NODES)
    packed, go = tmp_path / "packed", tmp_path / "go"
    words = ("--nodes", tmp_path / "own.py", "run", saved(tmp_path, DOCUMENT), "--json")
    with process(*words, data=tmp_path) as first:
        until(packed.exists)
        with process(*words, data=tmp_path) as second:
            assert second.stdout is not None
            said = [second.stdout.readline()]  # it has begun, so it has asked for the box or is about to
            time.sleep(0.3)
            makers = [str(first.pid)]
            assert packed.read_text().split() == makers
            if killed:
                first.kill()
                makers.append(str(second.pid))
                until(lambda: packed.read_text().split() == makers)
            go.touch()
            said += second.stdout.readlines()
            assert second.wait(PATIENCE) == 0
        first.communicate(timeout=PATIENCE)
    assert packed.read_text().split() == makers
    assert (tmp_path / f"opened {second.pid}").read_text() == "the content"
    assert (tmp_path / f"opened {first.pid}").exists() is not killed
    assert any('"node_reused"' in line and '"box"' in line for line in said) is not killed
