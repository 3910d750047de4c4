"""`latentloom`: the command line."""

import sys
from pathlib import Path

import click

from server.commands.bench import bench
from server.commands.models import models
from server.commands.nodes import nodes
from server.commands.run import run
from server.commands.validate import validate
from server.settings import Settings


@click.group(
    epilog="Example: latentloom run text_to_image --set Prompt.text='a red house in the snow' --seed 7",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="latentloom", prog_name="latentloom")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="LATENTLOOM_DATA",
    help="The folder with models/, input/, output/ and nodes/.",
)
@click.option(
    "--nodes",
    "own_nodes",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A Python file, or a folder of them, with nodes of your own. Can be given several times.",
)
@click.option("-v", "--verbose", count=True, help="Say more: which precision, what is loaded and dropped.")
@click.pass_context
def main(context: click.Context, data: Path | None, own_nodes: tuple[Path, ...], verbose: int) -> None:
    """A typed node-graph engine for diffusion: workflows in, pictures out."""
    context.obj = Settings(data=data, own_nodes=own_nodes, verbosity=verbose)


for command in (run, validate, nodes, models, bench):
    main.add_command(command)


if __name__ == "__main__":
    sys.exit(main())
