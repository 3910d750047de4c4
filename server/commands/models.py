"""`latentloom models`: which model files are found, where they are looked for, and what a file is."""

from pathlib import Path

import click

from server.options import allow_pickle
from server.settings import Settings


@click.group(invoke_without_command=True, epilog="Example: latentloom models inspect model.safetensors")
@allow_pickle
@click.pass_context
def models(context: click.Context) -> None:
    """List the models that loaders can name, and the folders they come from."""
    if context.invoked_subcommand is not None:
        return
    from nodes.checkpoints import CHECKPOINTS, VAES
    from nodes.clip_vision import PICTURE_ENCODERS
    from nodes.control_files import CONTROL_NETS
    from nodes.embeddings import EMBEDDINGS
    from nodes.gligen import GLIGENS
    from nodes.hypernetworks import HYPERNETWORKS
    from nodes.ip_adapters import IP_ADAPTERS
    from nodes.loras import LORAS
    from nodes.style_models import STYLE_MODELS
    from nodes.vision.models import VISION_MODELS

    settings: Settings = context.obj
    folders = settings.folders()
    sources = {
        "checkpoints": CHECKPOINTS,
        "vae": VAES,
        "loras": LORAS,
        "embeddings": EMBEDDINGS,
        "hypernetworks": HYPERNETWORKS,
        "controlnet": CONTROL_NETS,
        "clip_vision": PICTURE_ENCODERS,
        "ipadapter": IP_ADAPTERS,
        "gligen": GLIGENS,
        "style_models": STYLE_MODELS,
        "vision": VISION_MODELS,
    }
    for kind, source in sources.items():
        click.secho(f"{kind}  ({folders.models(kind)})", bold=True)
        for name in source.names(folders) or ["(none)"]:
            click.echo(f"  {name}")


@models.command(epilog="Example: latentloom models inspect ~/Downloads/model.safetensors")
@click.argument("file", type=click.Path(path_type=Path))
@allow_pickle
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


@models.command(epilog="Example: latentloom models convert old.ckpt --allow-pickle")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="The file to write; if left out, it lies beside."
)
@allow_pickle
def convert(file: Path, output: Path | None) -> None:
    """Write the weights in FILE, a pickle, as safetensors, which anybody can open without risk. FILE stays."""
    from nodes.conversion import convert as write
    from nodes.file_errors import OutputError
    from nodes.model_errors import ModelError
    from server.settings import WrongRequest

    target = output or file.with_suffix(".safetensors")
    try:
        count = write(file, target)
    except (ModelError, OutputError) as error:
        raise WrongRequest(str(error)) from error
    click.echo(f"{target}: {count} tensors")
