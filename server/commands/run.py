"""`latentloom run`: run a workflow and say what it made."""

import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from server.settings import Settings, WrongRequest, wrong_requests

if TYPE_CHECKING:
    from graph.cancellation import Cancellation
    from graph.events import Event
    from nodes.precision import PrecisionChoice

INTERRUPTED = 130
PRECISIONS: "tuple[PrecisionChoice, ...]" = ("auto", "fp32", "bf16", "fp16")


@click.command(
    epilog="""\b
Examples:
  latentloom run text_to_image --set Prompt.text="a blue boat at sunset" --seed 7
  latentloom run my_workflow.json --set KSampler.steps=30 --output pictures
  latentloom run picture.png            # a PNG that carries its workflow
  cat my_workflow.json | latentloom run - --json

Exit codes: 0 done, 1 a node failed, 2 the workflow or the arguments are wrong, 130 interrupted."""
)
@click.argument("file")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="NODE.INPUT=VALUE",
    help="Change an input. NODE is an id, a title, or a class name that occurs once. Can be repeated.",
)
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), help="The seed of every sampler.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="Where pictures go; output/ in the data folder if left out."
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="auto",
    show_default=True,
    help="The number format of the denoising network.",
)
@click.option("--store-bytes", type=click.IntRange(0), help="How much memory results may keep, in bytes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per event.")
@click.pass_obj
def run(
    settings: Settings,
    file: str,
    overrides: tuple[str, ...],
    seed: int | None,
    output: Path | None,
    precision: "PrecisionChoice",
    store_bytes: int | None,
    as_json: bool,
) -> None:
    """Run the workflow in FILE: API-format JSON, a PNG that carries one, an example's name, or - for standard input."""
    from graph.errors import Cancelled
    from graph.store import MemoryStore
    from nodes.engine import STORE_BYTES, Engine
    from server.display import Account, close, display
    from server.overrides import WrongOverride, override
    from workflows.documents import read_document

    settings.log_to_stderr()
    with wrong_requests():
        folders = settings.folders(output)
        document = read_document(file)
        engine = Engine(
            folders,
            catalogue=settings.catalogue(folders),
            store=MemoryStore(STORE_BYTES if store_bytes is None else store_bytes),
            precision=precision,
        )
        try:
            workflow = override(document.workflow, engine.catalogue, overrides, seed)
        except WrongOverride as error:
            raise WrongRequest(str(error)) from error
        graph = engine.resolve(workflow)
    for warning in graph.warnings:
        click.echo(f"Warning: {warning}", err=True)

    account = Account()
    with _interruptible() as cancellation, display(as_json) as show:

        def emit(event: "Event") -> None:
            account.take(event)
            show(event)

        try:
            engine.run_graph(graph, workflow, emit=emit, cancellation=cancellation, extra=document.extra)
        except Cancelled:
            click.echo("interrupted; what was finished is kept", err=True)
            sys.exit(INTERRUPTED)
    if not as_json:
        close(account, lambda text: click.echo(text, err=True), details=sys.stderr.isatty())
        for path in account.files:
            click.echo(str(path))
    for failure in account.failures:
        click.echo(f"Error: {failure}", err=True)
    if account.failures:
        sys.exit(1)


@contextmanager
def _interruptible() -> "Generator[Cancellation]":
    """Ctrl-C asks the run to stop at the next step; a second one stops at once."""
    from graph.cancellation import Cancellation

    cancellation = Cancellation()

    def interrupt(signum: int, frame: FrameType | None) -> None:
        if cancellation.requested:
            raise KeyboardInterrupt
        cancellation.cancel()
        click.echo("stopping after this step (Ctrl-C again to stop at once)", err=True)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield cancellation
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        signal.signal(signal.SIGINT, before)
