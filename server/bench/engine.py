"""The engine on its own: microseconds per node of graphs whose nodes do nothing."""

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graph.catalogue import Catalogue
from graph.execute import run
from graph.folders import Folders
from graph.node import node
from graph.resolve import resolve
from graph.store import MemoryStore
from graph.values import Ui, Value
from graph.workflow import read

Document = dict[str, Any]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Number(Value, kind="NUMBER"):
    value: int


@dataclass(frozen=True, slots=True)
class Shown(Ui):
    value: int


@node("One")
def one(value: int = 1) -> Number:
    """A number."""
    return Number(value)


@node("Sum")
def total(a: Number, b: Number | None = None, add: int = 0) -> Number:
    """The sum of its inputs."""
    return Number((a.value + (b.value if b else 0) + add) % 1_000_003)


@node("Show")
def show(value: Number) -> Shown:
    """Show a number."""
    return Shown(value.value)


CATALOGUE = Catalogue([one, total, show])


def chain(size: int) -> Document:
    """Each node takes the one before."""
    document: Document = {"0": _one()}
    for index in range(1, size):
        document[str(index)] = _sum(index - 1, add=index)
    return _shown(document, size - 1)


def wide(size: int) -> Document:
    """Many independent nodes, gathered pairwise."""
    half = max(size // 2, 1)
    document: Document = {str(index): _one(index) for index in range(half)}
    document[str(half)] = _sum(0, add=0)
    for index in range(1, half):
        document[str(half + index)] = _sum(half + index - 1, index)
    return _shown(document, 2 * half - 1)


def lattice(size: int) -> Document:
    """Each node takes the two before, so that the number of paths is exponential."""
    document: Document = {"0": _one(), "1": _one(2)}
    for index in range(2, size):
        document[str(index)] = _sum(index - 1, index - 2)
    return _shown(document, max(size, 2) - 1)


REPEATS = 5
"""Of which the fastest counts; large graphs are measured once."""

SHAPES: dict[str, Callable[[int], Document]] = {"chain": chain, "wide": wide, "lattice": lattice}


def measure(sizes: Sequence[int], say: Say) -> None:
    """Print the time of graphs: cold, repeated unchanged, and with the last node changed."""
    folders = Folders.below(Path("."))
    _time(chain(100), MemoryStore(1 << 30), folders)  # pays for what is loaded once per process
    say("parse + resolve + keys + run, in one process: µs per node, and ms in all")
    say(f"{'graph':<9}{'nodes':>8}{'cold':>20}{'unchanged':>20}{'end changed':>20}")
    worst = 0.0
    for name, shape in SHAPES.items():
        per_node: list[float] = []
        for size in sizes:
            document, store = shape(size), MemoryStore(1 << 30)
            count = len(document)
            times = 1 if count > 20_000 else REPEATS
            cold = min(_time(document, MemoryStore(1 << 30), folders) for _ in range(times))
            _time(document, store, folders)
            unchanged = min(_time(document, store, folders) for _ in range(times))
            changed = min(_time(_with_another_end(document, at), store, folders) for at in range(times))
            per_node.append(cold / count * 1e6)
            columns = "".join(f"{s / count * 1e6:>10.1f}{s * 1e3:>10.1f}" for s in (cold, unchanged, changed))
            say(f"{name:<9}{count:>8}{columns}")
        worst = max(worst, *per_node)
        say(f"{name:<9} largest graph against smallest, per node: {per_node[-1] / per_node[0]:.2f} ×")
    say(f"worst: {worst:.1f} µs per node cold")


def _time(document: Document, store: MemoryStore, folders: Folders) -> float:
    gc.collect()
    began = time.perf_counter()
    graph = resolve(read(document), CATALOGUE, folders)
    run(graph, store, folders=folders).checked()
    return time.perf_counter() - began


def _with_another_end(document: Document, at: int) -> Document:
    last = document["show"]["inputs"]["value"][0]
    document[last]["inputs"]["value" if document[last]["class_type"] == "One" else "add"] = 77 + at
    return document


def _one(value: int = 1) -> Document:
    return {"class_type": "One", "inputs": {"value": value}}


def _sum(a: int, b: int | None = None, add: int = 0) -> Document:
    second = {} if b is None else {"b": [str(b), 0]}
    return {"class_type": "Sum", "inputs": {"a": [str(a), 0], **second, "add": add}}


def _shown(document: Document, last: int) -> Document:
    return {**document, "show": {"class_type": "Show", "inputs": {"value": [str(last), 0]}}}
