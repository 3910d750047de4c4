"""What a run tells whoever watches it: one stream, one vocabulary."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from graph.values import Ui


@dataclass(frozen=True, slots=True)
class RunStarted:
    """Steps are planned: `reused` come from the store, `needed` will run (a composite counts as one)."""

    needed: tuple[str, ...]
    reused: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodeEvent:
    """Something about one step. `parent` is the composite it belongs to, if it is not in the document itself."""

    node_id: str
    class_name: str
    title: str | None
    parent: str | None


@dataclass(frozen=True, slots=True)
class NodeStarted(NodeEvent):
    """The step begins to run. `reasons` say why it has to, if the run was told what to compare with."""

    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeReused(NodeEvent):
    """The step's result was taken from the store."""


@dataclass(frozen=True, slots=True)
class NodeProgressed(NodeEvent):
    """The step reached `value` of `maximum`; `preview` is a picture of where it is, if there is one."""

    value: float
    maximum: float
    preview: Any = None


@dataclass(frozen=True, slots=True)
class NodeFinished(NodeEvent):
    """The step is done. `ui` is what it has to show, if it is an output."""

    seconds: float
    ui: Ui | None = None


@dataclass(frozen=True, slots=True)
class NodeSkipped(NodeEvent):
    """The step was not run, because something it takes is blocked. `message` is what the blocking node had to say."""

    message: str | None = None


@dataclass(frozen=True, slots=True)
class NodeFailed(NodeEvent):
    """The step failed with `error`; its cause is the error's `__cause__`."""

    error: Exception


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The run is over: `ok`, `failed` (some outputs may exist all the same) or `cancelled`."""

    status: str
    seconds: float


Event = RunStarted | NodeStarted | NodeReused | NodeProgressed | NodeFinished | NodeSkipped | NodeFailed | RunFinished
Emit = Callable[[Event], None]


def ignore(event: Event) -> None:
    """An `Emit` for those who do not watch."""
