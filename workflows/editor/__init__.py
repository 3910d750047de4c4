"""Workflows in the editor's own format (LiteGraph JSON), read and converted to API-format."""

from workflows.editor.api_form import Converted, to_api
from workflows.editor.descriptions import NodeInfos
from workflows.editor.document import is_editor_document

__all__ = ["Converted", "NodeInfos", "is_editor_document", "to_api"]
