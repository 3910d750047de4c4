"""Editor documents in a few lines: nodes with their slots, and links by where they come from."""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from graph.describe import object_info
from graph.folders import Folders
from graph.problems import InvalidWorkflow, Problem
from nodes.engine import EXAMPLES as PICTURES
from nodes.engine import built_in
from workflows.editor.api_form import Converted, to_api
from workflows.editor.descriptions import Descriptions

Json = dict[str, Any]
DATA = Path(__file__).parent / "data" / "editor"
INFOS = object_info(built_in(), Folders.below(Path("/nowhere"), examples=PICTURES))
NOW = datetime(2024, 3, 7, 9, 5, 2)
Place = tuple[int | str, int]
"""The id of a node and the index of one of its outputs."""


def info(*, output: list[Any] | None = None, optional: Json | None = None, **required: Any) -> Json:
    """An `object_info` entry, as it comes from any server of the protocol."""
    return {
        "input": {"required": required, "optional": optional or {}},
        "output": output or [],
        "output_name": output or [],
        "output_node": not output,
    }


def drawn(
    node_id: int | str,
    kind: str,
    values: Any = None,
    *,
    links: Mapping[str, Place] | None = None,
    inputs: list[tuple[str, str]] | None = None,
    outputs: list[str] | None = None,
    infos: Mapping[str, Any] = INFOS,
    **more: Any,
) -> Json:
    """A node as an editor saves it: slots as the class is described, or `inputs` (name, type) and `outputs`."""
    description = Descriptions(infos).get(kind)
    arriving = dict(links or {})
    slots: list[Json] = [{"name": name, "type": each, "link": arriving.pop(name, None)} for name, each in inputs or ()]
    if description is not None and inputs is None:
        slots = [{"name": each.name, "type": each.type, "link": None} for each in description.sockets]
        slots += [
            {"name": each.name, "type": each.type, "link": None, "widget": {"name": each.name}}
            for each in description.widgets
            if each.name in arriving
        ]
        for slot in slots:
            slot["link"] = arriving.pop(slot["name"], None)
    assert not arriving, f"{kind} has no inputs {list(arriving)}"
    if outputs is None:
        outputs = [] if description is None else [each for _, each in description.outputs]
    given = {} if values is None else {"widgets_values": values}
    leaving: list[Json] = [{"name": each, "type": each, "links": []} for each in outputs]
    return {"id": node_id, "type": kind, "mode": 0, "inputs": slots, "outputs": leaving, **given, **more}


def canvas(*nodes: Json, **more: Any) -> Json:
    """A document of version 0.4 with these nodes, their links numbered."""
    links: list[list[Any]] = []
    for node in nodes:
        for at, slot in enumerate(node["inputs"]):
            if isinstance(slot["link"], tuple):
                links.append([len(links) + 1, *slot["link"], node["id"], at, slot["type"]])
                slot["link"] = len(links)
    return {"nodes": list(nodes), "links": links, "version": 0.4, **more}


def subgraph(name: str, *nodes: Json, inputs: list[str], outputs: Mapping[str, Place]) -> Json:
    """A definition; inside it, links from an input come from (-10, its index)."""
    drawn = canvas(*nodes)
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    links = [dict(zip(names, link, strict=True)) for link in drawn["links"]]
    for index, (node_id, slot) in enumerate(outputs.values()):
        links.append(dict(zip(names, (len(links) + 1, node_id, slot, -20, index, "*"), strict=True)))
    return {
        "id": name,
        "name": name,
        "version": 1,
        "inputs": [{"name": each} for each in inputs],
        "outputs": [{"name": each} for each in outputs],
        "nodes": drawn["nodes"],
        "links": links,
    }


def fixture(name: str) -> Json:
    """A document kept as an editor saves it."""
    return json.loads((DATA / f"{name}.json").read_text())


def converted(document: object, infos: Mapping[str, Any] = INFOS) -> Converted:
    return to_api(document, infos, random=Random(1), now=NOW)


def api(document: object, infos: Mapping[str, Any] = INFOS) -> Json:
    """The document in API-format, without titles."""
    found = converted(document, infos)
    assert found.warnings == ()
    return {node_id: (used["class_type"], used["inputs"]) for node_id, used in found.document.items()}


def refused(document: object, infos: Mapping[str, Any] = INFOS) -> tuple[Problem, ...]:
    """What is wrong with a document."""
    with pytest.raises(InvalidWorkflow) as caught:
        to_api(document, infos)
    return caught.value.problems
