"""`latentloom convert`: a workflow from one format into the other."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from server.settings import Settings, WrongRequest, wrong_requests

if TYPE_CHECKING:
    from workflows.documents import Document, Form
    from workflows.editor.descriptions import NodeInfos

FORMS: "tuple[Form, ...]" = ("api", "editor")


@click.command(
    epilog="""\b
Examples:
  latentloom convert my_workflow.json              # API-format for an editor, and the other way round
  latentloom convert picture.png --to editor -o my_workflow.json"""
)
@click.argument("file")
@click.option(
    "--to", "form", type=click.Choice(FORMS), help="The format to write; if left out, the one that FILE is not in."
)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file.")
@click.pass_obj
def convert(settings: Settings, file: str, form: "Form | None", output: Path | None) -> None:
    """Write the workflow in FILE (as for run) in API-format, or in the format in which editors keep workflows."""
    from graph.describe import object_info
    from workflows.documents import read_document

    with wrong_requests():
        folders = settings.folders()
        infos = object_info(settings.catalogue(folders), folders)
        document = read_document(file, lambda: infos)
        converted = _in_form(document, form or ("editor" if document.form == "api" else "api"), infos)
    for warning in document.warnings:
        click.echo(f"Warning: {warning}", err=True)
    text = json.dumps(converted, indent=2, ensure_ascii=False)
    try:
        encoded = text.encode("utf-8")
    except UnicodeEncodeError:  # halves of letters, which only escapes can express
        encoded = json.dumps(converted, indent=2).encode()
    if output is None:
        click.echo(encoded)
        return
    try:
        output.write_bytes(encoded + b"\n")
    except OSError as error:
        raise WrongRequest(f"{output}: {error.strerror or error}") from error


def _in_form(document: "Document", form: "Form", infos: "NodeInfos") -> dict[str, Any]:
    from workflows.editor.editor_form import to_editor
    from workflows.editor.shapes import is_editor_document

    if form == "api":
        return {node_id: used.model_dump(exclude_unset=True) for node_id, used in document.workflow.items()}
    drawn = document.extra.get("workflow")
    return drawn if is_editor_document(drawn) else to_editor(document.workflow, infos)
