"""Show a run to whoever watches: live in a terminal, line by line elsewhere, or one JSON object per event."""

import json
import logging
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from graph.events import (
    Emit,
    Event,
    NodeEvent,
    NodeFailed,
    NodeFinished,
    NodeProgressed,
    NodeReused,
    NodeSkipped,
    NodeStarted,
    RunFinished,
    RunStarted,
)
from graph.problems import describe_step, same_name

if TYPE_CHECKING:
    from rich.progress import TaskID


log = logging.getLogger("latentloom.run")


@dataclass(slots=True)
class Account:
    """What a run did, for its closing lines: per step of the document whether it ran and how long, files, failures."""

    began: float = field(default_factory=time.perf_counter)
    times: dict[str, tuple[str, float | None]] = field(default_factory=dict[str, tuple[str, float | None]])
    files: list[Path] = field(default_factory=list[Path])
    failures: list[str] = field(default_factory=list[str])

    def take(self, event: Event) -> None:
        match event:
            case NodeReused(parent=None):
                self.times[event.node_id] = (named(event), None)
            case NodeFinished():
                self.files += paths_of(event)
                if event.parent is None:
                    self.times[event.node_id] = (named(event), event.seconds)
            case NodeFailed(parent=None):
                self.failures.append(str(event.error))
            case _:
                pass


def named(event: NodeEvent) -> str:
    """A step as a person knows it: by its title, and its class where the title does not tell it."""
    if event.title is None or same_name(event.title, event.class_name):
        return event.class_name
    return f"{event.title} ({event.class_name})"


def log_reasons(event: Event) -> None:
    """Say in the log why a step runs."""
    if isinstance(event, NodeStarted) and event.reasons:
        step = describe_step(event.node_id, event.class_name, event.title)
        log.info("%s runs: %s", step, "; ".join(event.reasons))


def _because(event: NodeSkipped) -> str:
    return f": {event.message}" if event.message else ""


def paths_of(event: NodeFinished) -> list[Path]:
    """The files a step has written."""
    paths: object = getattr(event.ui, "paths", ())
    return [path for path in cast("tuple[object, ...]", paths) if isinstance(path, Path)]


class Lines:
    """One line per step; for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def show(self, event: Event) -> None:
        match event:
            case NodeReused(parent=None):
                self._say(f"reused    {event.node_id:>4}  {named(event)}")
            case NodeFinished(parent=None):
                self._say(f"ran       {event.node_id:>4}  {named(event)}  {event.seconds:.2f} s")
            case NodeSkipped(parent=None):
                self._say(f"skipped   {event.node_id:>4}  {named(event)}{_because(event)}")
            case NodeFailed(parent=None):
                self._say(f"failed    {event.node_id:>4}  {named(event)}")
            case _:
                pass

    def _say(self, text: str) -> None:
        print(text, file=self.stream, flush=True)


class JsonLines:
    """One JSON object per event."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def show(self, event: Event) -> None:
        print(json_line(event_json(event)), file=self.stream, flush=True)


def json_line(document: dict[str, Any]) -> str:
    """One line of ASCII, so that it is right in every encoding; what JSON cannot hold becomes text."""
    return json.dumps(document, default=str)


def event_json(event: Event) -> dict[str, Any]:
    """An event as JSON: its name under `event`, then its fields."""
    match event:
        case RunStarted():
            return {"event": "run_started", "needed": list(event.needed), "reused": list(event.reused)}
        case RunFinished():
            return {"event": "run_finished", "status": event.status, "seconds": round(event.seconds, 4)}
        case _:
            pass
    fields: dict[str, Any] = {
        "event": _EVENT_NAMES[type(event)],
        "node": event.node_id,
        "class_type": event.class_name,
        "title": event.title,
        "parent": event.parent,
    }
    match event:
        case NodeStarted():
            fields |= {"reasons": list(event.reasons)}
        case NodeSkipped():
            fields |= {"message": event.message}
        case NodeProgressed():
            fields |= {"value": event.value, "max": event.maximum}
        case NodeFinished():
            fields |= {"seconds": round(event.seconds, 4)}
            if event.ui is not None:
                fields |= {"output": event.ui.to_json(), "files": [str(path) for path in paths_of(event)]}
        case NodeFailed():
            fields |= {"message": str(event.error)}
        case _:
            pass
    return fields


_EVENT_NAMES: Mapping[type[object], str] = {
    NodeStarted: "node_started",
    NodeReused: "node_reused",
    NodeProgressed: "node_progressed",
    NodeFinished: "node_finished",
    NodeSkipped: "node_skipped",
    NodeFailed: "node_failed",
}


class Live:
    """A bar for the whole run and one for the step at work, in a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self.progress: Progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self.whole: TaskID = self.progress.add_task("starting", total=None)
        self.steps: dict[str, TaskID] = {}

    def show(self, event: Event) -> None:
        match event:
            case RunStarted():
                self.progress.update(self.whole, description="workflow", total=len(event.needed) + len(event.reused))
            case NodeStarted(parent=None):
                self.steps[event.node_id] = self.progress.add_task(f"  {named(event)}", total=None)
            case NodeProgressed() if event.node_id in self.steps:
                self.progress.update(self.steps[event.node_id], total=event.maximum, completed=event.value)
            case (
                NodeReused(parent=None) | NodeFinished(parent=None) | NodeSkipped(parent=None) | NodeFailed(parent=None)
            ):
                self.progress.advance(self.whole)
                if (task := self.steps.pop(event.node_id, None)) is not None:
                    self.progress.remove_task(task)
            case _:
                pass


@contextmanager
def display(as_json: bool) -> Generator[Emit]:
    """Show events as suits the place the output goes to, while the block lasts.

    What nodes and libraries print meanwhile goes to stderr: stdout holds this program's answer alone.
    """
    stdout = sys.stdout
    with redirect_stdout(sys.stderr):
        if as_json:
            yield JsonLines(stdout).show
        elif not sys.stderr.isatty():
            yield Lines(sys.stderr).show
        else:
            live = Live()
            with live.progress:
                yield live.show


def close(account: Account, say: Callable[[str], None], details: bool) -> None:
    """The closing lines: what was written, and per step whether it ran or was reused and how long it took."""
    if details:
        width = max((len(name) for name, _ in account.times.values()), default=0)
        for node_id, (name, seconds) in account.times.items():
            say(f"  {node_id:>4}  {name:<{width}}  {'reused' if seconds is None else f'{seconds:8.2f} s'}")
    ran = sum(seconds is not None for _, seconds in account.times.values())
    reused = len(account.times) - ran
    say(f"{ran} run, {reused} reused in {time.perf_counter() - account.began:.1f} s")
