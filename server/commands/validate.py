"""`latentloom validate`: say everything that is wrong with a workflow, and run nothing."""

from functools import partial

import click

from server.options import allow_pickle
from server.settings import Settings, wrong_requests


@click.command(epilog="Example: latentloom validate my_workflow.json")
@click.argument("file")
@allow_pickle
@click.pass_obj
def validate(settings: Settings, file: str) -> None:
    """Check the workflow in FILE (as for run) without running it. Exit code 2 if it could not run."""
    from graph.describe import object_info
    from graph.resolve import resolve
    from workflows.documents import read_document

    with wrong_requests():
        folders = settings.folders()
        catalogue = settings.catalogue(folders)
        document = read_document(file, partial(object_info, catalogue, folders))
        graph = resolve(document.workflow, catalogue, folders)
    for warning in (*document.warnings, *graph.warnings):
        click.echo(f"Warning: {warning}", err=True)
    click.echo(f"{file} can run: {len(graph.steps)} nodes, {len(graph.targets)} of them outputs")
