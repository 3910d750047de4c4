"""`python -m workflows.examples`: run an example, or save it."""

from pathlib import Path

import click

from graph.errors import RunFailed
from workflows.examples import EXAMPLES, build


@click.command()
@click.argument("name", type=click.Choice(list(EXAMPLES)), metavar="[NAME]", required=False)
@click.option(
    "--save", type=click.Path(path_type=Path, dir_okay=False), help="Write the workflow to this file instead."
)
@click.option(
    "--save-all", type=click.Path(path_type=Path, file_okay=False), help="Write every example to this folder."
)
@click.option("--output", type=click.Path(path_type=Path), default=Path("output"), show_default=True)
def main(name: str | None, save: Path | None, save_all: Path | None, output: Path) -> None:
    """Run the example NAME, or save it."""
    if name is None and save_all is None:
        raise click.UsageError(f"which example? {', '.join(EXAMPLES)}")
    try:
        if save_all is not None:
            paths = [build(each).save(save_all / f"{each}.json") for each in EXAMPLES]
        elif save is not None:
            paths = [build(str(name)).save(save)]
        else:
            paths = _pictures(str(name), output)
    except (OSError, RunFailed) as error:
        raise click.ClickException(str(error)) from error
    for path in paths:
        click.echo(path)


def _pictures(name: str, output: Path) -> list[Path]:
    """Run an example; the files it wrote."""
    from nodes.engine import Engine, usual_folders

    result = Engine(usual_folders(output=output)).run(build(name)).checked()
    return [path for shown in result.shown.values() for path in getattr(shown, "paths", ())]


if __name__ == "__main__":
    main()
