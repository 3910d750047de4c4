"""`latentloom nodes`: what nodes there are, and what each takes and gives."""

import json
from itertools import groupby
from typing import TYPE_CHECKING

import click

from server.settings import Settings, WrongRequest, wrong_requests

if TYPE_CHECKING:
    from graph.catalogue import AnyNode
    from graph.folders import Folders
    from graph.node import Input


@click.command(
    epilog="""\b
Examples:
  latentloom nodes
  latentloom nodes KSampler
  latentloom nodes --json > object_info.json"""
)
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print ComfyUI's object_info entries.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of the node's inputs.")
@click.option("--reference", is_flag=True, help="Print which of ComfyUI's nodes are here, as a Markdown table.")
@click.pass_obj
def nodes(settings: Settings, name: str | None, as_json: bool, schema: bool, reference: bool) -> None:
    """List all nodes, or show what the node NAME takes and gives."""
    if reference:
        from nodes.engine import built_in
        from nodes.reference import table

        click.echo(table(built_in()), nl=False)
        return
    from graph.describe import node_info, node_schema, object_info
    from graph.problems import nearest

    with wrong_requests():
        folders = settings.folders()
        catalogue = settings.catalogue(folders)
    if name is not None and name not in catalogue:
        hint = nearest(name, catalogue)
        raise WrongRequest(f"there is no node called {name!r}{f' ({hint})' if hint else ''}")
    if schema:
        wanted = [name] if name else list(catalogue)
        schemas = {each: node_schema(catalogue[each], folders) for each in wanted}
        click.echo(json.dumps(schemas[name] if name else schemas, indent=2, ensure_ascii=False))
    elif as_json:
        info = {name: node_info(catalogue[name], folders)} if name else object_info(catalogue, folders)
        click.echo(json.dumps(info, indent=2, ensure_ascii=False))
    elif name is not None:
        _show(catalogue[name], folders)
    else:
        by_category = sorted(catalogue.values(), key=lambda node: (node.category, node.name))
        for category, members in groupby(by_category, key=lambda node: node.category):
            click.secho(category or "(no category)", bold=True)
            for node in members:
                click.echo(f"  {node.name:<26} {node.description.partition(chr(10))[0]}")


def _show(node: "AnyNode", folders: "Folders") -> None:
    click.secho(f"{node.name}  ({node.category})", bold=True)
    click.echo(f"  {node.description}\n")
    for declared in node.inputs.values():
        click.echo(f"  {declared.name:<26} {_takes(declared, folders)}")
    for output in node.outputs:
        click.echo(f"  → {output.name:<24} {output.wire}")


def _takes(declared: "Input", folders: "Folders") -> str:
    literal = declared.literal
    if literal is None:
        return declared.wire if declared.required else f"{declared.wire} (optional)"
    default = "" if declared.required else f" = {declared.default!r}"
    choices = literal.choices_now(folders)
    limits = f", {literal.limits}" if str(literal.limits) else ""
    shown = f", one of {', '.join(map(str, choices))}" if choices else ""
    return f"{declared.wire}{default}{limits}{shown}{f'  · {literal.tooltip}' if literal.tooltip else ''}"
