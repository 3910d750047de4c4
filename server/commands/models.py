"""`latentloom models`: which model files are found, and where they are looked for."""

import click

from server.settings import Settings


@click.command(epilog="Example: latentloom models")
@click.pass_obj
def models(settings: Settings) -> None:
    """List the models that loaders can name, and the folders they come from."""
    from nodes.checkpoints import CHECKPOINTS, VAES

    folders = settings.folders()
    for kind, source in (("checkpoints", CHECKPOINTS), ("vae", VAES)):
        click.secho(f"{kind}  ({folders.models(kind)})", bold=True)
        for name in source.names(folders) or ["(none)"]:
            click.echo(f"  {name}")
