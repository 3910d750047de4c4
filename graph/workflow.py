"""The workflow document: ComfyUI's API-format JSON, kept as it came."""

import json
from collections.abc import Mapping
from itertools import islice
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from graph.collector import collector_paused
from graph.problems import InvalidWorkflow, Problem


class WorkflowNode(BaseModel):
    """One use of a node. Keys this version does not know (`_meta` and others) are kept."""

    model_config = ConfigDict(extra="allow", frozen=True)

    class_type: str
    inputs: dict[str, Any] = Field(default_factory=dict)

    @property
    def title(self) -> str | None:
        """The title a person gave the node in their editor."""
        extra = self.model_extra
        meta: object = extra.get("_meta") if extra else None
        title: object = cast("dict[str, object]", meta).get("title") if isinstance(meta, dict) else None
        return title if isinstance(title, str) else None


Workflow = dict[str, WorkflowNode]
"""Node id → node, in the document's order."""

NODES_AT_ONCE = 1000

_WORKFLOW: TypeAdapter[Workflow] = TypeAdapter(Workflow)


def parse(text: str | bytes) -> Workflow:
    """Read a workflow from JSON text. Raises InvalidWorkflow."""
    try:
        document: object = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:  # also text that is not UTF-8 and numbers of thousands of digits
        raise _not_a_workflow(f"this is not JSON: {error}") from error
    except RecursionError as error:
        raise _not_a_workflow("this JSON is nested too deeply to be a workflow") from error
    return read(document)


def read(document: object) -> Workflow:
    """Read a workflow from parsed JSON: the document itself, or an object that holds it as `prompt`."""
    if not isinstance(document, dict):
        raise _not_a_workflow(f"a workflow is a JSON object of nodes, but this is {_json_type(document)}")
    nodes = cast("dict[str, object]", document)
    inner = nodes.get("prompt")
    if isinstance(inner, dict) and "class_type" not in inner:
        nodes = cast("dict[str, object]", inner)
    if isinstance(nodes.get("nodes"), list):
        raise _not_a_workflow(
            "this is a workflow in the editor's own format (it has a list of “nodes”)",
            suggestion="convert it with `latentloom convert`",
        )
    if not nodes:
        raise _not_a_workflow("this workflow has no nodes")
    workflow: Workflow = {}
    problems: list[Problem] = []
    with collector_paused():
        entries = iter(nodes.items())
        # In pieces: while one is validated no other thread can do anything.
        while some := dict(islice(entries, NODES_AT_ONCE)):
            try:
                workflow.update(_WORKFLOW.validate_python(some))
            except ValidationError as error:
                problems += [_shape_problem(some, detail["loc"]) for detail in error.errors()]
    if problems:
        raise InvalidWorkflow(problems)
    return workflow


def _shape_problem(nodes: Mapping[str, object], location: tuple[int | str, ...]) -> Problem:
    node_id = str(location[0])
    found = nodes.get(node_id)
    if not isinstance(found, dict):
        message = f"each node is an object with “class_type” and “inputs”, but this is {_json_type(found)}"
    elif len(location) > 1 and location[1] == "inputs":
        message = f"“inputs” must be an object, but it is {_json_type(cast('dict[str, object]', found)['inputs'])}"
    elif "class_type" in found:
        message = f"“class_type” must be text, but it is {_json_type(cast('dict[str, object]', found)['class_type'])}"
    else:
        message = "“class_type” is missing, so it is not known which node this is"
    return Problem("not_a_workflow", message, node_id=node_id)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it contains {name}, which Python writes but JSON does not have")


def _not_a_workflow(message: str, suggestion: str | None = None) -> InvalidWorkflow:
    return InvalidWorkflow([Problem("not_a_workflow", message, suggestion=suggestion)])


def _json_type(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case _:
            return "an object"
