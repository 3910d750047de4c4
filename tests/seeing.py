"""A bench for networks that look at pictures, with tiny ones in `models/vision/`."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from torch.nn import Module

from graph.builder import WorkflowBuilder
from graph.lists import Items
from nodes import checkpoints, latents, masks, sampling, text
from nodes.models import ModelPool
from nodes.modules import node_modules
from tests.drawings import DRAWINGS
from tests.running import Bench


def vision_bench(folder: Path) -> Bench:
    used = Bench.below(folder, *node_modules("vision."), checkpoints, latents, masks, sampling, text)
    return replace(used, services={ModelPool: ModelPool("fp32", "cpu")}, catalogue=used.catalogue | DRAWINGS)


def has(bench: Bench, write: Callable[[Path], Module], name: str = "tiny") -> Module:
    """Put a network in place, and return it as it was written."""
    return write(bench.folders.models("vision") / name)


def plain(found: Any) -> Any:
    """Lists as lists."""
    if isinstance(found, tuple):
        return tuple(plain(each) for each in cast("tuple[Any, ...]", found))
    return list(found.values) if isinstance(found, Items) else found


def given(bench: Bench, build: Callable[[], object]) -> Any:
    """What the last node of a workflow gives."""
    with WorkflowBuilder() as workflow:
        build()
    return plain(bench.last(workflow))


def refused(bench: Bench, build: Callable[[], object]) -> str:
    """Why a workflow fails."""
    with WorkflowBuilder() as workflow:
        build()
    return str(bench.run_last(workflow).failure)
