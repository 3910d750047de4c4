"""Describe nodes to the outside: as ComfyUI's `object_info` entries and as JSON Schema."""

from typing import Any

from pydantic_core import to_jsonable_python

from graph.catalogue import AnyNode, Catalogue
from graph.folders import Folders
from graph.literals import LiteralType
from graph.node import Input

Json = dict[str, Any]


def object_info(catalogue: Catalogue, folders: Folders) -> Json:
    """Every node as ComfyUI's editors and clients expect it under `/object_info`."""
    return {name: node_info(node, folders) for name, node in catalogue.items()}


def node_info(node: AnyNode, folders: Folders) -> Json:
    """One entry of `object_info`."""
    required: Json = {}
    optional: Json = {}
    for name, declared in node.inputs.items():
        # As the incumbent does: an input that has a widget with a default is required, one that can stay empty is not.
        place = optional if declared.default is None else required
        place[name] = input_info(declared, folders)
    info: Json = {
        "input": {"required": required, **({"optional": optional} if optional else {})},
        "input_order": {"required": list(required), **({"optional": list(optional)} if optional else {})},
        "output": [output.wire for output in node.outputs],
        "output_is_list": [output.many for output in node.outputs],
        "output_name": [output.name for output in node.outputs],
        "name": node.name,
        "display_name": node.title,
        "description": node.description,
        "python_module": node.function.__module__,
        "category": node.category,
        "output_node": node.sink,
    }
    return info | ({node.stage: True} if node.stage else {})


def node_schema(node: AnyNode, folders: Folders) -> Json:
    """A JSON Schema of the node's `inputs` object; links are `["node id", output index]`."""
    properties: Json = {}
    definitions: Json = {}
    for name, declared in node.inputs.items():
        link: Json = {
            "type": "array",
            "prefixItems": [{"type": "string"}, {"type": "integer", "minimum": 0}],
            "minItems": 2,
            "maxItems": 2,
            "title": f"link to {declared.wire}",
        }
        if declared.literal is None:
            properties[name] = link
            continue
        literal = declared.literal.json_schema()
        definitions |= literal.pop("$defs", {})
        if declared.literal.source is not None:
            literal["enum"] = list(declared.literal.choices_now(folders))
        if not declared.required:
            literal["default"] = to_jsonable_python(declared.default)
        if not declared.literal.plain:
            # A list as it stands would be taken for a link.
            literal = {"type": "object", "properties": {"__value__": literal}, "required": ["__value__"]}
        properties[name] = {"anyOf": [literal, link]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": node.name,
        "description": node.description,
        "type": "object",
        "properties": properties,
        "required": [name for name, declared in node.inputs.items() if declared.required],
        **({"$defs": definitions} if definitions else {}),
    }


def input_info(declared: Input, folders: Folders) -> list[Any]:
    """An input as `[type, options]`, or `[choices, options]` where there are some."""
    if declared.literal is None:
        return [declared.wire]
    options = _options(declared, declared.literal)
    if declared.whole:
        options["lazy"] = True
    if declared.wire == "COMBO":
        return [list(declared.literal.choices_now(folders)), options]
    return [declared.wire, options]


def _options(declared: Input, literal: LiteralType) -> Json:
    options: Json = {}
    if not declared.required and declared.default is not None:
        options["default"] = to_jsonable_python(declared.default)
    limits = literal.limits
    whole = literal.wire == "INT"
    if limits.least is not None or limits.above is not None:
        options["min"] = limits.least if limits.least is not None else _beyond(limits.above, whole, 1)
    if limits.most is not None or limits.below is not None:
        options["max"] = limits.most if limits.most is not None else _beyond(limits.below, whole, -1)
    options |= literal.widget.options()
    if literal.tooltip:
        options["tooltip"] = literal.tooltip
    return options


def _beyond(bound: float | None, whole: bool, step: int) -> float | None:
    return bound + step if bound is not None and whole else bound
