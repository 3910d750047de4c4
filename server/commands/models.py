"""`latentloom models`: which model files are found, where they are looked for, and what a file is."""

from pathlib import Path

import click

from server.settings import Settings


@click.group(invoke_without_command=True, epilog="Example: latentloom models inspect model.safetensors")
@click.pass_context
def models(context: click.Context) -> None:
    """List the models that loaders can name, and the folders they come from."""
    if context.invoked_subcommand is not None:
        return
    from nodes.checkpoints import CHECKPOINTS, VAES
    from nodes.embeddings import EMBEDDINGS
    from nodes.loras import LORAS
    from nodes.vision.models import VISION_MODELS

    settings: Settings = context.obj
    folders = settings.folders()
    sources = {"checkpoints": CHECKPOINTS, "vae": VAES, "loras": LORAS, "embeddings": EMBEDDINGS}
    for kind, source in {**sources, "vision": VISION_MODELS}.items():
        click.secho(f"{kind}  ({folders.models(kind)})", bold=True)
        for name in source.names(folders) or ["(none)"]:
            click.echo(f"  {name}")


@models.command(epilog="Example: latentloom models inspect ~/Downloads/model.safetensors")
@click.argument("file", type=click.Path(path_type=Path))
def inspect(file: Path) -> None:
    """Say what a model file or folder is, or why it is nothing known. Reads no weights.

    The exit code is 0 for what is known, 2 for what is not.
    """
    from nodes.inspection import describe
    from nodes.model_errors import ModelError
    from server.settings import WrongRequest

    try:
        description = describe(file)
    except ModelError as error:
        raise WrongRequest(str(error)) from error
    click.secho(f"{file.name}: {description.title}", bold=True)
    for line in description.lines:
        click.echo(f"  {line}")
    if not description.known:
        raise SystemExit(2)
