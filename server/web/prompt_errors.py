"""What is wrong with a prompt, in the shapes that clients of the protocol read (reference §3.1, §3.2)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, Field

from graph.catalogue import AnyNode
from graph.describe import input_info
from graph.folders import Folders
from graph.problems import Problem, ProblemKind

Json = dict[str, Any]

_TYPES: Mapping[ProblemKind, tuple[str, str]] = {
    "missing_input": ("required_input_missing", "Required input is missing"),
    "wrong_type": ("invalid_input_type", "Failed to convert an input value"),
    "not_a_choice": ("value_not_in_list", "Value not in list"),
    "missing_file": ("value_not_in_list", "Value not in list"),
    "bad_link": ("bad_linked_input", "Bad linked input, must be a length-2 list of [node_id, slot_index]"),
    "missing_node": ("bad_linked_input", "Bad linked input, its node is not in the prompt"),
    "missing_output": ("bad_linked_input", "Bad linked input, its node has no such output"),
    "type_mismatch": ("return_type_mismatch", "Return type mismatch between linked nodes"),
    "cycle": ("dependency_cycle", "Dependency cycle detected"),
    "not_a_workflow": ("invalid_node", "This is no node"),
}


class Mistake(BaseModel):
    """What is wrong with what was sent, taken as a whole."""

    type: str
    message: str
    details: str
    extra_info: Json


class Refusal(BaseModel):
    """The body of an answer that refuses a workflow."""

    error: Mistake
    node_errors: Annotated[Json, Field(description="What is wrong with single nodes, by their ids.")]


class NotTaken(Exception):
    """What was sent cannot be run, or not like this: the body of the answer says why, in the shape of `/prompt`."""

    def __init__(self, body: Json, status: int = 400, problems: Sequence[Problem] = ()) -> None:
        self.body = body
        self.status = status
        self.problems = tuple(problems)
        super().__init__(body["error"]["message"])


def refusal(kind: str, message: str, details: str = "", node_errors: Json | None = None) -> Json:
    """The body of a 400."""
    error: Json = {"type": kind, "message": message, "details": details, "extra_info": {}}
    return {"error": error, "node_errors": node_errors or {}}


def wrong_request(message: str, details: str = "") -> NotTaken:
    """What was asked for is no request."""
    return NotTaken(refusal("invalid_request", message, details))


def whole_refusal(problems: Sequence[Problem]) -> Json | None:
    """The body of a 400 for what makes a whole prompt unusable; None if it is a matter of single nodes."""
    for problem in problems:
        place = f"Node ID '#{problem.node_id}'"
        match problem.kind:
            case "unknown_class":
                message = f"Cannot execute because node {problem.class_name} does not exist."
                hint = f"{place}; {problem.suggestion}" if problem.suggestion else place
                return refusal("invalid_prompt", message, hint)
            case "not_a_workflow" if problem.node_id is not None and "class_type" in problem.message:
                message = "Cannot execute because a node is missing the class_type property."
                return refusal("invalid_prompt", message, place)
            case "not_a_workflow":
                return refusal("invalid_prompt", problem.message, problem.suggestion or "")
            case "no_output" | "unknown_target":
                return refusal("prompt_no_outputs", "Prompt has no outputs", str(problem))
            case _:
                pass
    return None


def outputs_refusal(problems: Sequence[Problem], node_errors: Json) -> Json:
    """The body of a 400 when no output can be made."""
    details = "\n".join(str(problem) for problem in problems)
    return refusal("prompt_outputs_failed_validation", "Prompt outputs failed validation", details, node_errors)


def node_errors(
    problems: Iterable[Problem],
    dependent: Mapping[str, Sequence[str]],
    catalogue: Mapping[str, AnyNode],
    folders: Folders,
) -> Json:
    """`node_errors` of an answer: for every node with an error of its own, all of them.

    Args:
        dependent: the outputs that need a node, by its id.
    """
    found: Json = {}
    for problem in problems:
        if problem.node_id is None:
            continue
        entry = found.setdefault(
            problem.node_id,
            {
                "errors": [],
                "dependent_outputs": list(dependent.get(problem.node_id, ())),
                "class_type": problem.class_name or "",
            },
        )
        entry["errors"].append(_node_error(problem, catalogue, folders))
    return found


def _node_error(problem: Problem, catalogue: Mapping[str, AnyNode], folders: Folders) -> Json:
    kind, message = _TYPES.get(problem.kind, ("custom_validation_failed", "Custom validation failed for node"))
    if problem.kind == "out_of_range":
        kind, message = _range(problem)
    extra: Json = {}
    if problem.input is not None:
        extra["input_name"] = problem.input
        node = catalogue.get(problem.class_name or "")
        declared = node.inputs.get(problem.input) if node is not None else None
        if declared is not None:
            extra["input_config"] = input_info(declared, folders)
        if problem.found is not None:
            extra["received_value"] = problem.found
    details = f"{problem.input}: {problem.message}" if problem.input else problem.message
    if problem.suggestion:
        details += f" ({problem.suggestion})"
    return {"type": kind, "message": message, "details": details, "extra_info": extra}


def _range(problem: Problem) -> tuple[str, str]:
    """Which bound was crossed. The problem says what is expected and what was found."""
    expected, found = problem.expected or "", problem.found or ""
    lower = expected.partition(" and ")[0]
    too_small = lower.startswith(("at least", "above")) and not _exceeds(lower, found)
    name = "smaller than min" if too_small else "bigger than max"
    kind = "value_smaller_than_min" if too_small else "value_bigger_than_max"
    return kind, f"Value {found} {name}: it must be {expected}"


def _exceeds(bound: str, found: str) -> bool:
    try:
        return float(found) >= float(bound.split()[-1])
    except ValueError:
        return False
