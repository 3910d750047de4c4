"""The engine with everything in it: catalogue, store, model pool and folders, ready to run workflows.

engine = Engine(Folders.below(data))
result = engine.run(workflow)            # a builder, a parsed document, or JSON as Python objects
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Literal

from graph.active_run import RunOptions
from graph.builder import WorkflowBuilder
from graph.cancellation import Cancellation
from graph.catalogue import Catalogue, installed_nodes, own_nodes
from graph.disk_store import DiskStore
from graph.events import Emit, ignore
from graph.executor import Executor, Result
from graph.folders import Folders, default_data_folder
from graph.kept import found
from graph.keys import Key, identities, key_of
from graph.resolve import Graph, resolve
from graph.store import MemoryStore, Store
from graph.tiered_store import TieredStore
from graph.values import Service
from graph.workflow import Workflow, read
from nodes.codecs import CODEC
from nodes.documents import Documents
from nodes.models import ModelPool
from nodes.modules import node_modules
from nodes.precision import PrecisionChoice
from nodes.prepared_networks import PREPARED_BYTES, PreparedNetworks

MEMORY_BYTES = 2 * 1024**3
DISK_BYTES = 20 * 1024**3
StoreChoice = Literal["disk", "memory", "none"]
EXAMPLES = Path(__file__).resolve().parent.parent / "workflows" / "input"


def built_in() -> Catalogue:
    """The nodes that ship with Latentloom."""
    return Catalogue.gather(*node_modules())


def full_catalogue(folders: Folders, own: Iterable[Path] = ()) -> Catalogue:
    """Built-in nodes, those of installed packages, those in the data folder's `nodes/`, and those in `own`."""
    catalogue = built_in() | installed_nodes()
    for path in (*([folders.own_nodes] if folders.own_nodes.is_dir() else ()), *own):
        catalogue = catalogue | own_nodes(path)
    return catalogue


def usual_folders(data: Path | None = None, output: Path | None = None) -> Folders:
    """The folders of this installation, with the example pictures that ship with it."""
    return Folders.below(data or default_data_folder(), output, EXAMPLES)


def usual_store(folders: Folders, choice: StoreChoice = "disk", max_bytes: int | None = None) -> Store:
    """Where results are kept: on disk with memory in front of it, in memory alone, or nowhere.

    Args:
        max_bytes: on disk 20 GiB if left out, in memory 2 GiB. The memory in front of the disk holds 2 GiB at most.
    """
    match choice:
        case "disk":
            room = DISK_BYTES if max_bytes is None else max_bytes
            return TieredStore(MemoryStore(MEMORY_BYTES), DiskStore(folders.store, room, CODEC))
        case "memory":
            return MemoryStore(MEMORY_BYTES if max_bytes is None else max_bytes)
        case "none":
            return MemoryStore(0)


class Engine:
    """Runs workflows in this process. What one run makes, the next one finds.

    Results are kept in memory, unless another store is given: with `usual_store(folders)` they outlive the process.

    Args:
        device: where networks compute: as torch names it, or `auto` for the GPU if there is one.
        lanes: how many steps may run at once in each lane; see `graph.lanes.usual_lanes`.
        threads: how many threads may join those that call `run`; 0 runs one step after the other.
        prepared_bytes: how much networks may take on the disk that are kept as this machine computes with them: 20
            GiB if left out; 0 keeps none.
    """

    def __init__(
        self,
        folders: Folders | None = None,
        *,
        catalogue: Catalogue | None = None,
        store: Store | None = None,
        precision: PrecisionChoice = "auto",
        device: str = "auto",
        lanes: Mapping[str, int] | None = None,
        threads: int | None = None,
        prepared_bytes: int | None = None,
    ) -> None:
        self.folders = folders or usual_folders()
        self.catalogue = full_catalogue(self.folders) if catalogue is None else catalogue
        self.store: Store = MemoryStore(MEMORY_BYTES) if store is None else store
        room = PREPARED_BYTES if prepared_bytes is None else prepared_bytes
        prepared = PreparedNetworks(self.folders.prepared, room) if room else None
        self.models = ModelPool(precision, device, prepared=prepared)
        self.executor = Executor(lanes, threads=threads, codec=CODEC)

    def at(self, folders: Folders) -> "Engine":
        """The same engine for somebody whose files are elsewhere: it shares catalogue, store, models and lanes."""
        other = copy(self)
        other.folders = folders
        return other

    def resolve(
        self, workflow: Workflow | WorkflowBuilder | Mapping[str, Any], targets: Sequence[str] | None = None
    ) -> Graph:
        """Check a workflow without running it. Raises InvalidWorkflow."""
        return resolve(_parsed(workflow), self.catalogue, self.folders, targets)

    def keys(self, graph: Graph) -> dict[str, Key | None]:
        """The key of every step of a graph, by id, as a run would make them."""
        services = identities({ModelPool: self.models})
        keys: dict[str, Key | None] = {}
        for step in graph.steps:
            keys[step.id] = key_of(step, keys, services=services)
        return keys

    def found(self, graph: Graph) -> frozenset[str]:
        """The ids of the steps whose outputs a run would take from the store."""
        return found(graph, self.store, identities({ModelPool: self.models}))

    def run(
        self,
        workflow: Workflow | WorkflowBuilder | Mapping[str, Any],
        *,
        targets: Sequence[str] | None = None,
        emit: Emit = ignore,
        cancellation: Cancellation | None = None,
        extra: Mapping[str, Any] | None = None,
        options: RunOptions | None = None,
    ) -> Result:
        """Run a workflow. Raises InvalidWorkflow, Cancelled; failures of nodes are in the result (`checked()`).

        May be called from several threads at once: the runs share the machine, step by step.

        Args:
            targets: ids of the nodes whose results are wanted; by default every output node.
            emit: is told everything that happens, one event at a time, by whichever thread it happens in.
            extra: documents that saved files carry beside the workflow itself, by name.
        """
        parsed = _parsed(workflow)
        graph = resolve(parsed, self.catalogue, self.folders, targets)
        return self.run_graph(graph, parsed, emit=emit, cancellation=cancellation, extra=extra, options=options)

    def run_graph(
        self,
        graph: Graph,
        workflow: Workflow,
        *,
        emit: Emit = ignore,
        cancellation: Cancellation | None = None,
        extra: Mapping[str, Any] | None = None,
        options: RunOptions | None = None,
    ) -> Result:
        """Run what `resolve` gave for a workflow."""
        prompt = {node_id: used.model_dump(exclude_unset=True) for node_id, used in workflow.items()}
        services: dict[type[Service], Service] = {ModelPool: self.models, Documents: Documents(prompt, extra or {})}
        try:
            return self.executor.run(
                graph,
                self.store,
                folders=self.folders,
                services=services,
                emit=emit,
                cancellation=cancellation,
                options=options,
            )
        finally:
            self.store.flush()


def _parsed(workflow: Workflow | WorkflowBuilder | Mapping[str, Any]) -> Workflow:
    return workflow.workflow() if isinstance(workflow, WorkflowBuilder) else read(dict(workflow))
