"""Run small workflows through the engine, and count what ran."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from graph.builder import WorkflowBuilder
from graph.cancellation import Cancellation
from graph.catalogue import Catalogue
from graph.errors import NodeError
from graph.events import Emit, Event, NodeFinished, NodeProgressed, NodeReused, ignore
from graph.execute import run
from graph.executor import Result
from graph.folders import Folders
from graph.node import node
from graph.resolve import resolve
from graph.store import MemoryStore
from graph.values import Service
from nodes.documents import Documents
from nodes.values import Image, Latent, Mask


@node("AnyImage")
def any_image(width: int = 8, height: int = 8, batch: int = 1, seed: int = 0) -> Image:
    """A picture of noise."""
    import torch

    return Image(torch.rand(batch, height, width, 3, generator=torch.Generator().manual_seed(seed)))


@node("AnyMask")
def any_mask(width: int = 8, height: int = 8, batch: int = 1, seed: int = 0) -> Mask:
    """A mask of noise."""
    import torch

    return Mask(torch.rand(batch, height, width, generator=torch.Generator().manual_seed(seed)))


@node("AnyLatent")
def any_latent(width: int = 8, height: int = 8, batch: int = 1, channels: int = 4, seed: int = 0) -> Latent:
    """A latent of noise, said to be part of a larger batch."""
    import torch

    samples = torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))
    return Latent(samples, batch_index=tuple(range(10, 10 + batch)))


SOURCES = Catalogue((any_image, any_mask, any_latent))


@dataclass(frozen=True)
class Outcome:
    """What a run gave, and what it did."""

    result: Result
    events: tuple[Event, ...]

    @property
    def ran(self) -> list[str]:
        return [event.class_name for event in self.events if isinstance(event, NodeFinished)]

    @property
    def reused(self) -> list[str]:
        return [event.class_name for event in self.events if isinstance(event, NodeReused)]

    @property
    def progress(self) -> list[tuple[float, float]]:
        return [(event.value, event.maximum) for event in self.events if isinstance(event, NodeProgressed)]

    @property
    def failure(self) -> NodeError:
        """The one thing that went wrong."""
        (failure,) = self.result.failures
        return failure


@dataclass
class Bench:
    """A small engine: nodes, a store in memory, and folders below one."""

    folders: Folders
    catalogue: Catalogue
    services: dict[type[Service], Service] = field(default_factory=dict[type[Service], Service])
    store: MemoryStore = field(default_factory=lambda: MemoryStore(1 << 28))

    @staticmethod
    def below(folder: Path, *modules: ModuleType) -> "Bench":
        return Bench(Folders.below(folder), SOURCES | Catalogue.gather(*modules))

    def run(
        self,
        workflow: WorkflowBuilder,
        *targets: str,
        extra: Mapping[str, Any] | None = None,
        watch: Emit = ignore,
        cancellation: Cancellation | None = None,
    ) -> Outcome:
        """Run the workflow's outputs, or these nodes. `watch` is told what happens, as it happens."""
        graph = resolve(workflow.workflow(), self.catalogue, self.folders, targets or None)
        services = {Documents: Documents(workflow.document(), extra or {}), **self.services}
        events: list[Event] = []

        def emit(event: Event) -> None:
            events.append(event)
            watch(event)

        result = run(graph, self.store, folders=self.folders, services=services, emit=emit, cancellation=cancellation)
        return Outcome(result, tuple(events))

    def run_last(self, workflow: WorkflowBuilder) -> Outcome:
        """Run the node recorded last, and what it needs."""
        return self.run(workflow, list(workflow.document())[-1])

    def last(self, workflow: WorkflowBuilder) -> Any:
        """The output of the node recorded last: one value, or a tuple of several."""
        (outputs,) = self.run_last(workflow).result.checked().outputs.values()
        return outputs[0] if len(outputs) == 1 else outputs
