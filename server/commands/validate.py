"""`latentloom validate`: say everything that is wrong with a workflow, and run nothing."""

import click

from server.settings import Settings, wrong_requests


@click.command(epilog="Example: latentloom validate my_workflow.json")
@click.argument("file")
@click.pass_obj
def validate(settings: Settings, file: str) -> None:
    """Check the workflow in FILE (as for run) without running it. Exit code 2 if it could not run."""
    from graph.resolve import resolve
    from workflows.documents import read_document

    with wrong_requests():
        folders = settings.folders()
        graph = resolve(read_document(file).workflow, settings.catalogue(folders), folders)
    for warning in graph.warnings:
        click.echo(f"Warning: {warning}", err=True)
    click.echo(f"{file} can run: {len(graph.steps)} nodes, {len(graph.targets)} of them outputs")
