"""Change literals in an editor's document, so that what a picture carries is what made it."""

from collections.abc import Mapping
from typing import Any

from workflows.editor.descriptions import Descriptions, NodeInfos
from workflows.editor.document import read_editor_document
from workflows.editor.editor_form import shown
from workflows.editor.shapes import a_list
from workflows.editor.widgets import rewritten

Changes = Mapping[str, Mapping[str, Any]]
"""Node id → input → literal, as in API-format."""


def with_literals(document: Mapping[str, Any], changes: Changes, nodes: NodeInfos) -> dict[str, Any] | None:
    """A copy of an editor's document with other literals in its widgets.

    None where that takes more than writing into a widget: inside a subgraph, whose definition others may share, or
    where a link has to go. Then `to_editor` draws the workflow anew.
    """
    graph = read_editor_document(document).root
    descriptions = Descriptions(nodes)
    written: dict[str, object] = {}
    for node_id, literals in changes.items():
        node = graph.nodes.get(node_id)
        description = descriptions.get(node.type) if node is not None else None
        if node is None or description is None:
            return None
        linked = {slot.name for slot in node.inputs if slot.link is not None}
        widgets = {widget.name: widget for widget in description.widgets if widget.name not in linked}
        if not literals.keys() <= widgets.keys():
            return None
        values = {name: shown(widgets[name], literal) for name, literal in literals.items()}
        written[node_id] = rewritten(description, node.widgets_values, values)
    drawn = [
        {**raw, "widgets_values": written[node.id]} if node.id in written else raw
        for raw, node in zip(a_list(document["nodes"]), graph.nodes.values(), strict=True)
    ]
    return {**document, "nodes": drawn}
