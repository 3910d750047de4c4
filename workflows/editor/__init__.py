"""Workflows in the editor's own format (LiteGraph JSON): converted to API-format, and drawn from it."""
