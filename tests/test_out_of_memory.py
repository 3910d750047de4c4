"""Nodes for which there is not enough memory."""

from pathlib import Path

from graph.builder import WorkflowBuilder
from graph.node import node
from nodes import text
from nodes.checkpoints import load_checkpoint
from nodes.engine import Engine, built_in, usual_folders
from nodes.text import encode_text
from nodes.values import Image

TOO_MANY = 1 << 44
tried: list[int] = []


@node("Greedy")
def greedy(image: Image | None = None) -> Image:
    """Asks for 64 TB."""
    import torch

    tried.append(1)
    return Image(torch.empty(TOO_MANY))


@node("Tight")
def tight() -> Image:
    """Finds room only the second time."""
    import torch

    tried.append(1)
    return Image(torch.zeros(1, 8, 8, 3) if len(tried) > 1 else torch.empty(TOO_MANY))


def engine(folder: Path) -> Engine:
    from graph.catalogue import Catalogue

    tried.clear()
    return Engine(usual_folders(folder), catalogue=built_in() | Catalogue([greedy, tight]))


def test_a_node_that_needs_too_much_is_tried_twice_and_named(tmp_path: Path):
    used = engine(tmp_path)
    with WorkflowBuilder() as workflow:
        _, clip, _ = load_checkpoint(ckpt_name="loomlet")
        encode_text(text="a house", clip=clip)
        greedy()
    assert text.encode_text.lane == "device"
    used.run(workflow, targets=["2"]).checked()
    (failure,) = used.run(workflow, targets=["3"]).failures
    said = str(failure)
    assert said.startswith("node 3 (Greedy) failed: out of memory: 67,108,864 MiB more were needed; resident: loomlet")
    assert "MiB had been freed before it was tried again" in said
    assert len(tried) == 2
    assert used.models.resident == []


def test_a_node_that_finds_room_the_second_time_succeeds(tmp_path: Path):
    used = engine(tmp_path)
    with WorkflowBuilder() as workflow:
        tight()
    used.run(workflow, targets=["1"]).checked()
    assert len(tried) == 2
