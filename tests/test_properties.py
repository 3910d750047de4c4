"""Random graphs and random edits: what is kept, and who runs what, never changes a result, and nothing runs twice."""

import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graph.executor import Executor, Result
from graph.identity import digest
from graph.keys import Key, key_of
from graph.resolve import Graph
from graph.store import MemoryStore, Outputs
from tests import beads
from tests.bead_documents import KINDS, Documents, Pick
from tests.beads import NODES, Shown, Tray
from tests.interpreter import Log, read
from tests.toys import graph_of

LAZY = {"Fork", "ForEach", "While"}
"""Of these one output may be found although another is not there, and then less runs than a plain reading tells."""
NOTED = {"Bead", "Join", "Halve", "Weigh", "Polish", "Chip", "Roll", "Sieve", "Scatter", "Thread", "Assort"}
"""Nodes that note that they are called."""


@pytest.fixture(scope="module", autouse=True)
def any_step_is_worth_a_thread() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("graph.crew.BRIEF_SECONDS", 0.0)
        yield


def picking(data: st.DataObject) -> Pick:
    return lambda below: data.draw(st.integers(0, below - 1))


def edits(documents: Documents, count: int) -> Iterator[Graph]:
    """The graph, and what it becomes by edits, one after the other."""
    yield graph_of(NODES, documents.document, documents.targets)
    for _ in range(count):
        documents.edit()
        yield graph_of(NODES, documents.document, documents.targets)


def is_lazy(graph: Graph) -> bool:
    return any(step.node.name in LAZY for step in graph.steps)


def expect(graph: Graph, result: Result) -> Log:
    """Whether a run gave what a plain reading of the graph gives. Returns what that one did."""
    outputs, failed, log = read(graph)
    found = {failure.node_id for failure in result.failures}
    if is_lazy(graph):
        assert outputs.items() <= result.outputs.items()
        assert found <= failed
    else:
        assert (result.outputs, found) == (outputs, failed)
    if result.outputs.keys() == outputs.keys():
        assert shown(result) == sorted(log.shown)
    return log


def shown(result: Result) -> list[str]:
    return sorted(ui.text for ui in result.shown.values() if isinstance(ui, Shown))


STORES = {"everything": 1 << 30, "little": 2000, "nothing": 0}


@pytest.mark.parametrize("kept", STORES)
@pytest.mark.parametrize("threads", [0, 4])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_edited_graphs_give_what_a_plain_reading_gives(kept: str, threads: int, data: st.DataObject):
    tray = Tray(MemoryStore(STORES[kept]), executor=Executor({"cpu": 4}, threads=threads))
    for graph in edits(Documents(picking(data), data.draw(st.integers(1, 12))), 3):
        result = tray.run_graph(graph)
        log = expect(graph, result)
        most = Counter(name for _, name in log.calls)
        assert Counter(name for name in tray.ran if name in NOTED) <= most  # in one run no step runs twice


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_what_runs_again_is_exactly_what_has_a_new_name(data: st.DataObject):
    tray, made = Tray(), set[Any]()
    kinds = [kind for kind in KINDS if kind not in LAZY]
    for graph in edits(Documents(picking(data), data.draw(st.integers(1, 14)), kinds), 4):
        tray.run_graph(graph)
        ran = Counter(name for name in tray.ran if name in NOTED)
        _, _, log = read(graph)
        fresh = {name for name in log.calls if name[0] is not None and name[0] not in made}
        nameless = [name for name in log.calls if name[0] is None]
        assert ran == Counter(name for _, name in [*fresh, *nameless] if name in NOTED)
        made |= log.made


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_second_run_calls_only_what_is_impure_or_failed(data: st.DataObject):
    tray = Tray()
    documents = Documents(picking(data), data.draw(st.integers(1, 14)))
    graph = graph_of(NODES, documents.document, documents.targets)
    first = tray.run_graph(graph)
    second = tray.run_graph(graph)
    assert (second.outputs, shown(second)) == (first.outputs, shown(first))
    _, _, log = read(graph)
    again = {call for call in log.calls if call[0] is not None and call[0] not in log.made}
    nameless = [call for call in log.calls if call[0] is None]
    assert Counter(name for name in tray.ran if name in NOTED) <= Counter(name for _, name in [*again, *nameless])


def keys_of(graph: Graph) -> dict[str, Key | None]:
    keys: dict[str, Key | None] = {}
    for step in graph.steps:
        keys[step.id] = key_of(step, keys)
    return keys


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_changed_literal_changes_exactly_the_keys_downstream_of_it(data: st.DataObject):
    documents = Documents(picking(data), data.draw(st.integers(1, 14)))
    everything = list(documents.document)
    before = graph_of(NODES, documents.document, everything)
    edited, name = documents.edit_literal()
    after = graph_of(NODES, documents.document, everything)
    downstream: set[str] = set()
    for step, other in zip(before.steps, after.steps, strict=True):
        if step.id == edited and step.literals[name] != other.literals[name]:
            downstream.add(step.id)
        if any(source in downstream for source, _ in step.links.values()):
            downstream.add(step.id)
    keys, others = keys_of(before), keys_of(after)
    named = {step_id for step_id, key in keys.items() if key is not None}
    assert {step_id for step_id in keys if keys[step_id] != others[step_id]} == downstream & named


class Noting(MemoryStore):
    """Notes the keys under which something is put."""

    def __init__(self) -> None:
        super().__init__(1 << 30)
        self.keys: set[Key] = set()

    def put(self, key: Key, outputs: Outputs, *, class_name: str = "", seconds: float = 0.0) -> None:
        self.keys.add(key)
        super().put(key, outputs, class_name=class_name, seconds=seconds)


def keys_of_random_runs() -> str:
    """Under which keys the results of some runs are kept, in one word."""
    pick, store = random.Random(7).randrange, Noting()
    for size in range(1, 16):
        documents = Documents(pick, size)
        Tray(store).run_graph(graph_of(NODES, documents.document, documents.targets))
    assert len(store.keys) > 100
    return digest(*sorted(store.keys)).hex()


def test_keys_are_the_same_in_every_process():
    words = [sys.executable, "-c", "from tests.test_properties import *; print(keys_of_random_runs())"]
    found = {
        subprocess.run(
            words, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("0", "1")
    }
    assert found == {keys_of_random_runs()}


def test_the_search_comes_upon_everything():
    """So that it cannot pass by never drawing what is hard."""
    pick = random.Random(1).randrange
    classes: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    for _ in range(150):
        documents = Documents(pick, 12)
        graph = graph_of(NODES, documents.document, documents.targets)
        classes.update(step.node.name for step in graph.steps)
        result = Tray().run_graph(graph)
        outcomes["failed"] += bool(result.failures)
        outcomes["ok"] += bool(result.outputs)
        for outputs in result.outputs.values():
            outcomes.update(type(value).__name__ for value in outputs)
    assert {node.name for node in beads.NODES} - set(classes) <= {"Not", "Calculate"}
    assert all(outcomes[kind] >= 8 for kind in ("failed", "ok", "Bead", "Items", "Blocked"))
