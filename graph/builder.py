"""Write a workflow as Python: inside a builder, calling a node records it.

with WorkflowBuilder() as workflow:
    checkpoint = load_checkpoint(ckpt_name="loomlet")
    prompt = encode_text.titled("Prompt")(text="a red house", clip=checkpoint.clip)
    …
workflow.save("picture.json")
"""

import json
from collections.abc import Mapping
from contextvars import Token
from copy import deepcopy
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

from graph.node import Node
from graph.recording import Link, Recorder, owned, recorder
from graph.workflow import Workflow, read


class WorkflowBuilder:
    """Takes down every node called in its block, and is a workflow document afterwards."""

    def __init__(self) -> None:
        self._nodes: dict[str, dict[str, Any]] = {}
        self._token: Token[Recorder | None] | None = None

    def __enter__(self) -> "WorkflowBuilder":
        self._token = recorder.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            recorder.reset(self._token)

    def add(self, node: Node[Any, Any], arguments: Mapping[str, object], title: str | None = None) -> tuple[Link, ...]:
        """Record one call. Raises TypeError where a link is needed and something else is given."""
        node_id = str(len(self._nodes) + 1)
        inputs: dict[str, Any] = {}
        for name, declared in node.inputs.items():
            given = arguments.get(name, declared.default)
            if isinstance(given, Link):
                inputs[name] = list(owned(given, self))
            elif declared.value is None:
                inputs[name] = _as_json(node, name, given)
            elif given is not None:
                raise TypeError(
                    f"{node.name} takes the output of a node as {name!r} ({declared.wire}), "
                    f"but was given a {type(given).__name__}"
                )
        self._nodes[node_id] = {"class_type": node.name, "inputs": inputs, "_meta": {"title": title or node.title}}
        return tuple(Link(node_id, at, self) for at in range(len(node.outputs)))

    def document(self) -> dict[str, Any]:
        """The workflow as ComfyUI's API-format JSON."""
        return deepcopy(self._nodes)

    def workflow(self) -> Workflow:
        return read(self.document())

    def save(self, path: Path | str) -> Path:
        """Write the document to a file."""
        path = Path(path)
        path.write_text(json.dumps(self.document(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return path


def _as_json(node: Node[Any, Any], name: str, given: object) -> object:
    try:
        literal: object = to_jsonable_python(given)
    except PydanticSerializationError as error:
        raise TypeError(f"{node.name} cannot be given this as {name!r}, as it is not JSON: {error}") from error
    wrapped: object = {"__value__": literal}
    return wrapped if isinstance(literal, list) else literal
