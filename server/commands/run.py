"""`latentloom run`: run a workflow and say what it made."""

import os
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from server.options import PRECISIONS, allow_pickle, prepared_bytes
from server.quantities import SIZE
from server.settings import Settings, wrong_requests

if TYPE_CHECKING:
    from graph.cancellation import Cancellation
    from graph.events import Event
    from nodes.engine import StoreChoice
    from nodes.precision import PrecisionChoice

INTERRUPTED = 130
STORES: "tuple[StoreChoice, ...]" = ("disk", "memory", "none")


@click.command(
    epilog="""\b
Examples:
  latentloom run text_to_image --set Prompt.text="a blue boat at sunset" --seed 7
  latentloom run my_workflow.json --set KSampler.steps=30 --output pictures
  latentloom run picture.png            # a picture that carries its workflow
  cat my_workflow.json | latentloom run - --json

Exit codes: 0 done, 1 a node failed, 2 the workflow or the arguments are wrong, 130 interrupted.
With --json a wrong workflow is one object too: {"event": "refused", "message": …, "problems": […]}."""
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
@click.option(
    "--store",
    type=click.Choice(STORES),
    default="disk",
    show_default=True,
    help="Where results are kept: in the data folder, for every later run; in memory, for this run; or nowhere.",
)
@click.option(
    "--store-bytes", type=SIZE, help="How much the store may hold: 500MB, 20GiB. Default 20GiB on disk, 2GiB in memory."
)
@prepared_bytes
@click.option(
    "--node-timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds after which a node counts as failed."
)
@click.option("--check-nodes", is_flag=True, help="Find nodes that change what they are given; takes longer.")
@allow_pickle
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per event.")
@click.pass_obj
def run(
    settings: Settings,
    file: str,
    overrides: tuple[str, ...],
    seed: int | None,
    output: Path | None,
    precision: "PrecisionChoice",
    store: "StoreChoice",
    store_bytes: int | None,
    prepared_bytes: int | None,
    node_timeout: float | None,
    check_nodes: bool,
    as_json: bool,
) -> None:
    """Run the workflow in FILE: JSON in API-format or an editor's, or a picture that carries some.

    FILE may also be the name of an example, or - for standard input.
    """
    from graph.active_run import RunOptions
    from graph.describe import object_info
    from graph.errors import Cancelled
    from graph.explain import reasons, record
    from nodes.engine import Engine, usual_store
    from server.display import Account, close, display, log_reasons
    from server.last_run import recall, remember
    from server.overrides import override
    from workflows.documents import carried, read_document

    settings.log_to_stderr()
    with wrong_requests(as_json):
        folders = settings.folders(output)
        catalogue = settings.catalogue(folders)
        describe = partial(object_info, catalogue, folders)
        document = read_document(file, describe)
        engine = Engine(
            folders,
            catalogue=catalogue,
            store=usual_store(folders, store, store_bytes),
            precision=precision,
            prepared_bytes=prepared_bytes,
        )
        workflow = override(document.workflow, engine.catalogue, overrides, seed)
        graph = engine.resolve(workflow)
    keys = engine.keys(graph)
    options = RunOptions(
        node_timeout=node_timeout, check_inputs=check_nodes, reasons=reasons(graph, keys, recall(folders))
    )
    remember(folders, record(graph, keys))
    for warning in (*document.warnings, *graph.warnings):
        click.echo(f"Warning: {warning}", err=True)

    account = Account()
    with _interruptible() as cancellation, display(as_json) as show:

        def emit(event: "Event") -> None:
            account.take(event)
            log_reasons(event)
            show(event)

        try:
            extra = carried(document, workflow, describe)
            engine.run_graph(graph, workflow, emit=emit, cancellation=cancellation, extra=extra, options=options)
        except Cancelled:
            click.echo("interrupted; what was finished is kept", err=True)
            sys.exit(INTERRUPTED)
    if not as_json:
        close(account, lambda text: click.echo(text, err=True), details=sys.stderr.isatty())
        for path in account.files:
            click.echo(os.fsencode(path))
    for failure in account.failures:
        click.echo(f"Error: {failure}", err=True)
    if account.failures:
        sys.exit(1)


@contextmanager
def _interruptible() -> "Generator[Cancellation]":
    """Ctrl-C, or SIGTERM, asks the run to stop at the next step; a second one stops at once."""
    from graph.cancellation import Cancellation

    cancellation = Cancellation()

    def interrupt(signum: int, frame: FrameType | None) -> None:
        if cancellation.requested:
            raise KeyboardInterrupt
        cancellation.cancel()
        # Past Python's buffers, in the middle of whose work the signal may have come.
        os.write(2, b"stopping after this step (Ctrl-C again to stop at once)\n")

    before = {kind: signal.signal(kind, interrupt) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield cancellation
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        # After an interruption only the way out is left, which yet another Ctrl-C could only garble.
        for kind, handler in before.items():
            signal.signal(kind, signal.SIG_IGN if cancellation.requested else handler)
