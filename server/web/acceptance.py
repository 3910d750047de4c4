"""What of a workflow can be run: all of it, some of its outputs, or nothing, and why. Too slow for the event loop."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graph.catalogue import Catalogue
from graph.folders import Folders
from graph.problems import InvalidWorkflow, Problem
from graph.resolve import resolve
from graph.workflow import Workflow
from server.web.prompt_errors import node_errors, outputs_refusal, whole_refusal

Json = dict[str, Any]
MOST_EXPLAINED = 200
"""Nodes whose dependent outputs are looked up; beyond that a client has enough to mend."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A workflow of which at least one output can be made.

    `targets` are the outputs that will be; `node_errors` says of the others why not. `warnings` are for people.
    """

    workflow: Workflow
    targets: tuple[str, ...]
    node_errors: Json
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """A workflow of which nothing can be made: the body of the answer, and the problems themselves."""

    body: Json
    problems: tuple[Problem, ...]


def examine(
    workflow: Workflow, catalogue: Catalogue, folders: Folders, targets: Sequence[str] | None = None
) -> Accepted | Refused:
    """Find out what of a workflow can be run.

    Args:
        targets: ids of the outputs that are wanted; ids of other nodes count for nothing, as the protocol has it.
    """
    outputs = [node_id for node_id, used in workflow.items() if _is_output(catalogue, used.class_type)]
    wanted = outputs if targets is None else [node_id for node_id in outputs if node_id in set(targets)]
    try:
        if not wanted:
            resolve(workflow, catalogue, folders)  # whatever else is wrong comes first
            return _no_outputs(workflow, catalogue, folders)
        graph = resolve(workflow, catalogue, folders, wanted)
        return Accepted(workflow, tuple(wanted), {}, graph.warnings)
    except InvalidWorkflow as error:
        problems = error.problems
    body = whole_refusal(problems)
    if body is not None:
        return Refused(body, problems)
    followers = _followers(workflow)
    bad = [problem.node_id for problem in problems if problem.node_id is not None]
    reached = _reached(bad, followers)
    left = [node_id for node_id in wanted if node_id not in reached]
    dependent = {
        node_id: [output for output in wanted if output in _reached([node_id], followers)]
        for node_id in dict.fromkeys(bad[:MOST_EXPLAINED])
    }
    errors = node_errors(problems, dependent, catalogue, folders)
    if not left:
        return Refused(outputs_refusal(problems, errors), problems)
    graph = resolve(workflow, catalogue, folders, left)
    return Accepted(workflow, tuple(left), errors, graph.warnings)


def _is_output(catalogue: Catalogue, class_type: str) -> bool:
    node = catalogue.get(class_type)
    return node is not None and node.sink


def _no_outputs(workflow: Workflow, catalogue: Catalogue, folders: Folders) -> Refused:
    problem = Problem("no_output", "none of the nodes that were asked for is an output")
    body = whole_refusal([problem])
    assert body is not None
    return Refused(body, (problem,))


def _followers(workflow: Workflow) -> Mapping[str, Sequence[str]]:
    """Which nodes link to each node."""
    followers: dict[str, list[str]] = {}
    for node_id, used in workflow.items():
        for given in used.inputs.values():
            match given:
                case [str() | int() as source, int() | float()]:
                    followers.setdefault(str(source), []).append(node_id)
                case _:
                    pass
    return followers


def _reached(starts: Sequence[str], followers: Mapping[str, Sequence[str]]) -> set[str]:
    """The nodes and everything that needs them."""
    reached = set(starts)
    stack = list(starts)
    while stack:
        for follower in followers.get(stack.pop(), ()):
            if follower not in reached:
                reached.add(follower)
                stack.append(follower)
    return reached
