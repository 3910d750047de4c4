"""`latentloom`: the command line."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from server.settings import Settings

INTERRUPTED = 130


COMMANDS = ("run", "serve", "keys", "validate", "convert", "explain", "nodes", "models", "cache", "bench")
"""Each is in the module of its name, and loaded when it is asked for."""


class Commands(click.Group):
    """Commands that answer Ctrl-C with one line and an exit code of their own, wherever it meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"server.commands.{cmd_name}"), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)


def _say_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        click.echo(f"latentloom, version {version('latentloom')}")
    except PackageNotFoundError:
        click.echo("latentloom, from a clone that is not installed")
    context.exit()


@click.group(
    cls=Commands,
    epilog="Example: latentloom run text_to_image --set Prompt.text='a red house in the snow' --seed 7",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_say_version, help="Show the version."
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="LATENTLOOM_DATA",
    help="The folder with models/, input/, output/, nodes/ and store/.",
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
    if reconfigure := getattr(sys.stdout, "reconfigure", None):
        # What knows fewer letters (a terminal, a pipe on Windows) gets \u2192 and the like instead of a traceback.
        reconfigure(errors="backslashreplace")
    context.obj = Settings(data=data, own_nodes=own_nodes, verbosity=verbose)


if __name__ == "__main__":
    sys.exit(main())
