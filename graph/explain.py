"""Why a step would run: what differs from an earlier graph, input by input, and what is no longer kept."""

import json
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from pydantic_core import to_jsonable_python

from graph.keys import Key, node_identity
from graph.problems import describe_step
from graph.resolve import Graph, Step

ReasonKind = Literal[
    "output", "impure", "first", "new", "literal", "file", "code", "link", "input", "upstream", "not_kept"
]


class StepRecord(BaseModel):
    """What a step's key was made of, to be compared with later."""

    model_config = ConfigDict(frozen=True)

    class_name: str
    title: str | None
    code: str
    key: str | None
    literals: dict[str, Any]
    files: dict[str, str]
    links: dict[str, tuple[str, int]]


class GraphRecord(BaseModel):
    """What the keys of a graph were made of, by step id."""

    model_config = ConfigDict(frozen=True)

    steps: dict[str, StepRecord]


@dataclass(frozen=True, slots=True)
class Reason:
    """One difference, with the input it is at and what stands there before and after."""

    kind: ReasonKind
    input: str | None = None
    before: str | None = None
    after: str | None = None

    def __str__(self) -> str:
        match self.kind:
            case "output":
                return "an output runs every time"
            case "impure":
                return "it, or something it needs, has no identity and runs every time"
            case "first":
                return "nothing like it was run before"
            case "new":
                return "it is new"
            case "literal":
                return f"{self.input}: {self.before} → {self.after}"
            case "file":
                return f"{self.input}: the content of {self.after} has changed"
            case "code":
                return "the node's code has changed"
            case "link":
                return f"{self.input}: comes from {self.after} instead of {self.before}"
            case "input":
                return f"{self.input}: given as {self.after} instead of {self.before}"
            case "upstream":
                return f"{self.input}: {self.after} differs"
            case "not_kept":
                return "it is the same as before, but no result of it is kept"


Outcome = Literal["run", "may run", "reused", "not needed"]
"""`may run`: only if a switch or a loop turns out to need it."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would happen to one step, and why."""

    step: Step
    outcome: Outcome
    reasons: tuple[Reason, ...] = ()


def record(graph: Graph, keys: Mapping[str, Key | None]) -> GraphRecord:
    """Take down what the keys of a graph were made of."""
    return GraphRecord(steps={step.id: _record(step, keys[step.id]) for step in graph.steps})


def explain(
    graph: Graph,
    keys: Mapping[str, Key | None],
    kept: Container[str],
    before: GraphRecord | None,
) -> list[Explanation]:
    """For every step whether it would run or be reused, and why it would run.

    Args:
        keys: the keys of the steps, by id.
        kept: the steps whose outputs the store has.
        before: the graph to compare with.
    """
    now = record(graph, keys)
    partners = _partners(now, before) if before else {}
    outcomes = _outcomes(graph, kept)
    return [
        Explanation(step, outcomes[step.id], tuple(_reasons(step, now, before, partners, keys)))
        if outcomes[step.id] in ("run", "may run")
        else Explanation(step, outcomes[step.id])
        for step in graph.steps
    ]


def reasons(graph: Graph, keys: Mapping[str, Key | None], before: GraphRecord | None) -> dict[str, tuple[Reason, ...]]:
    """Why each step, if it runs, does not have the result of an earlier graph."""
    return {each.step.id: each.reasons for each in explain(graph, keys, (), before)}


def _record(step: Step, key: Key | None) -> StepRecord:
    return StepRecord(
        class_name=step.node.name,
        title=step.title,
        code=node_identity(step.node).hex(),
        key=key.hex() if key else None,
        literals=to_jsonable_python(dict(step.literals)),
        files=dict(step.files),
        links=dict(step.links),
    )


def _outcomes(graph: Graph, kept: Container[str]) -> dict[str, Outcome]:
    """As the executor plans: back from the targets, as far as the store does not have what is needed."""
    needed, maybe = set(graph.targets), set[str]()
    outcomes: dict[str, Outcome] = {}
    steps = {step.id: step for step in graph.steps}
    for step in reversed(graph.steps):
        if step.id not in needed and step.id not in maybe:
            outcomes[step.id] = "not needed"
        elif step.id in kept and not step.node.sink:
            outcomes[step.id] = "reused"
        else:
            sure = step.id in needed
            outcomes[step.id] = "run" if sure else "may run"
            for name, (source, _) in step.links.items():
                # What a switch does not pass on is not run; what lies in a loop is run turn by turn, if at all.
                open_ended = step.node.inputs[name].whole or step.node.loop is not None
                (needed if sure and not open_ended else maybe).add(source)
                if sure and step.node.loop == "each" and name == "loop" and (items := steps[source].links.get("items")):
                    needed.add(items[0])
    return outcomes


def _partners(now: GraphRecord, before: GraphRecord) -> dict[str, str]:
    """Which step of the earlier graph each step is to be compared with: same id, same key, or same class and title."""
    by_key = {step.key: step_id for step_id, step in before.steps.items() if step.key}
    by_name: dict[tuple[str, str | None], list[str]] = {}
    for step_id, step in before.steps.items():
        by_name.setdefault((step.class_name, step.title), []).append(step_id)
    partners: dict[str, str] = {}
    for step_id, step in now.steps.items():
        same_id = before.steps.get(step_id)
        named = by_name.get((step.class_name, step.title), [])
        if same_id is not None and same_id.class_name == step.class_name:
            partners[step_id] = step_id
        elif step.key in by_key:
            partners[step_id] = by_key[step.key]
        elif len(named) == 1:
            partners[step_id] = named[0]
    return partners


def _reasons(
    step: Step,
    now: GraphRecord,
    before: GraphRecord | None,
    partners: Mapping[str, str],
    keys: Mapping[str, Key | None],
) -> Iterator[Reason]:
    if step.node.sink:
        yield Reason("output")
        return
    if keys[step.id] is None:
        yield Reason("impure")
        return
    if before is None:
        yield Reason("first")
        return
    partner = partners.get(step.id)
    if partner is None:
        yield Reason("new")
        return
    old, new = before.steps[partner], now.steps[step.id]
    if old.key == new.key:
        yield Reason("not_kept")
        return
    if old.code != new.code:
        yield Reason("code")
    for name in step.node.inputs:
        yield from _difference(name, old, new, now, before, partners)


def _difference(
    name: str,
    old: StepRecord,
    new: StepRecord,
    now: GraphRecord,
    before: GraphRecord,
    partners: Mapping[str, str],
) -> Iterator[Reason]:
    """What is different at one input."""
    was, link = old.links.get(name), new.links.get(name)
    if (was is None) != (link is None):
        yield Reason("input", name, _given(name, old, before), _given(name, new, now))
    elif was is None or link is None:
        if old.literals.get(name) != new.literals.get(name):
            yield Reason("literal", name, _shown(old.literals.get(name)), _shown(new.literals.get(name)))
        elif old.files.get(name) != new.files.get(name):
            yield Reason("file", name, after=str(new.literals.get(name)))
    elif (partners.get(link[0]), link[1]) != was and _key(link, now) != _key(was, before):
        yield Reason("link", name, _place(was, before), _place(link, now))
    elif _key(link, now) != _key(was, before):
        yield Reason("upstream", name, after=_place(link, now))


def _key(link: tuple[str, int], graph: GraphRecord) -> tuple[str | None, int]:
    return graph.steps[link[0]].key, link[1]


def _given(name: str, step: StepRecord, graph: GraphRecord) -> str:
    link = step.links.get(name)
    return _place(link, graph) if link else _shown(step.literals.get(name))


def _place(link: tuple[str, int], graph: GraphRecord) -> str:
    step = graph.steps[link[0]]
    return describe_step(link[0], step.class_name, step.title)


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
