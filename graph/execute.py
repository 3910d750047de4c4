"""Run a graph once, without an executor to keep."""

from collections.abc import Mapping

from graph.active_run import RunOptions
from graph.cancellation import Cancellation
from graph.events import Emit, ignore
from graph.executor import Executor, Result
from graph.folders import Folders
from graph.resolve import Graph
from graph.store import Store
from graph.values import Service


def run(
    graph: Graph,
    store: Store,
    *,
    folders: Folders,
    services: Mapping[type[Service], Service] | None = None,
    emit: Emit = ignore,
    cancellation: Cancellation | None = None,
    options: RunOptions | None = None,
) -> Result:
    """Run a graph in this thread, one step after the other. See `Executor.run`."""
    return Executor(threads=0).run(
        graph, store, folders=folders, services=services, emit=emit, cancellation=cancellation, options=options
    )
