"""Workflows in the editor's own format (LiteGraph JSON): read, converted to API-format, and drawn from it."""

from workflows.editor.api_form import Converted, to_api
from workflows.editor.descriptions import NodeInfos
from workflows.editor.document import is_editor_document
from workflows.editor.editor_form import to_editor
from workflows.editor.edits import with_literals

__all__ = ["Converted", "NodeInfos", "is_editor_document", "to_api", "to_editor", "with_literals"]
