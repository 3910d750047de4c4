"""`--set NODE.INPUT=VALUE` and `--seed`: change a workflow's literals from the command line."""

import json
from collections.abc import Sequence
from typing import cast

from graph.catalogue import Catalogue
from graph.node import Input
from graph.problems import describe_step, nearest
from graph.workflow import Workflow, WorkflowNode

SEEDS = ("seed", "noise_seed")


class WrongOverride(ValueError):
    """An override (`--set KSampler.steps=12`) does not fit the workflow."""

    def __init__(self, given: str, reason: str) -> None:
        super().__init__(f"{given}: {reason}")


def override(workflow: Workflow, catalogue: Catalogue, overrides: Sequence[str], seed: int | None = None) -> Workflow:
    """The workflow with literals replaced. NODE is an id, a title, or a class name that occurs once.

    Raises WrongOverride.
    """
    changed = dict(workflow)
    if seed is not None:
        changed = {node_id: _seeded(used, catalogue, seed) for node_id, used in changed.items()}
        if changed == dict(workflow) and not any(name in used.inputs for used in workflow.values() for name in SEEDS):
            raise WrongOverride(f"--seed {seed}", "no node of this workflow has a seed")
    for text in overrides:
        given = f"--set {text}"
        place, equals, value = text.partition("=")
        name, dot, input_name = place.rpartition(".")
        if not equals or not dot:
            raise WrongOverride(given, "it should look like NODE.INPUT=VALUE, for example KSampler.steps=12")
        node_id = _find(given, changed, name)
        used = changed[node_id]
        literal = _value(value, _declared(given, catalogue, node_id, used, input_name))
        changed[node_id] = _with_input(used, input_name, literal)
    return changed


def _find(given: str, workflow: Workflow, name: str) -> str:
    if name in workflow:
        return name
    for matches in (
        [node_id for node_id, used in workflow.items() if used.title == name],
        [node_id for node_id, used in workflow.items() if used.class_type == name],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            places = ", ".join(
                describe_step(found, workflow[found].class_type, workflow[found].title) for found in matches
            )
            raise WrongOverride(given, f"{name!r} could be any of {places}; use the id or a title")
    names = {
        *workflow,
        *(used.class_type for used in workflow.values()),
        *(used.title or "" for used in workflow.values()),
    }
    hint = nearest(name, sorted(names))
    raise WrongOverride(given, f"no node has the id, title or class {name!r}{f' ({hint})' if hint else ''}")


def _declared(given: str, catalogue: Catalogue, node_id: str, used: WorkflowNode, input_name: str) -> Input | None:
    node = catalogue.get(used.class_type)
    if node is None:
        return None  # resolve will say more about it
    declared = node.inputs.get(input_name)
    place = describe_step(node_id, used.class_type, used.title)
    if declared is None:
        hint = nearest(input_name, node.inputs) or f"it has {', '.join(node.inputs)}"
        raise WrongOverride(given, f"{place} has no input {input_name!r} ({hint})")
    if declared.value is not None:
        raise WrongOverride(given, f"input {input_name!r} of {place} takes a link ({declared.wire}), not a value")
    return declared


def _value(value: str, declared: Input | None) -> object:
    """Text stays text where text is wanted; elsewhere the value is JSON, or else text as well."""
    if declared is not None and declared.wire in ("STRING", "COMBO"):
        return value
    try:
        literal: object = json.loads(value)
    except json.JSONDecodeError:
        return value
    return {"__value__": cast(object, literal)} if isinstance(literal, list) else literal


def _seeded(used: WorkflowNode, catalogue: Catalogue, seed: int) -> WorkflowNode:
    node = catalogue.get(used.class_type)
    for name in SEEDS:
        if node is not None and name in node.inputs and not isinstance(used.inputs.get(name), list):
            used = _with_input(used, name, seed)
    return used


def _with_input(used: WorkflowNode, name: str, value: object) -> WorkflowNode:
    return used.model_copy(update={"inputs": {**used.inputs, name: value}})
