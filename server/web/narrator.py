"""What happens in a run, told in the protocol's messages (reference §5): their names, their order, their ids.

Steps inside a composite are told as progress of the node in the document that they belong to; only what they show is
told under their own ids. Traffic is linear in the number of nodes: progress of a node is told a few times a second, and
says nothing of nodes that neither changed nor run.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from server.workers.messages import (
    Failure,
    JobEvent,
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

Json = dict[str, Any]
PROGRESS_SECONDS = 0.1
"""Progress of a node is told no oftener than this."""


@dataclass(frozen=True, slots=True)
class Message:
    """A JSON message: `{"type": …, "data": …}`.

    Args:
        replaces: of messages with the same mark that wait to be sent, only the last needs to be.
        lasting: whether it belongs into the history of the job.
    """

    type: str
    data: Json
    replaces: str | None = None
    lasting: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a node at work, with what the newer of the two binary forms says of it.

    A newer one takes the place of one that waits to be sent, unless it is a `result`.
    """

    metadata: Json
    content: bytes
    result: bool = False


@dataclass(frozen=True, slots=True)
class StatusText:
    """A line of text that an editor shows at a node."""

    node_id: str
    text: str


Told = Message | Picture | StatusText


@dataclass(frozen=True, slots=True)
class _Change:
    """How far a node is now: value, maximum, state."""

    node_id: str
    state: tuple[float, float, str]


def milliseconds() -> int:
    """Now, as messages state it."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class Narrator:
    """Tells one run.

    Args:
        nodes: ids of the nodes of the document, and their classes.
    """

    prompt_id: str
    nodes: Mapping[str, str]
    clock: Callable[[], float] = time.monotonic
    executed: list[str] = field(default_factory=list[str])
    """Nodes of the document that are done."""
    outputs: dict[str, Json] = field(default_factory=dict[str, Json])
    """What nodes have to show, by id."""
    meta: dict[str, Json] = field(default_factory=dict[str, Json])
    lasting: list[tuple[str, Json]] = field(default_factory=list[tuple[str, Json]])
    """The messages that the history of the job keeps."""
    failures: list[Failure] = field(default_factory=list[Failure])
    _parents: dict[str, str | None] = field(default_factory=dict[str, "str | None"])
    _running: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    _told: dict[str, float] = field(default_factory=dict[str, float])

    def tell(self, events: Iterable[JobEvent]) -> list[Told]:
        """The messages of what happened at once, in order.

        How far nodes are is told once for all of them, and anew after each thing that a node has to show.
        """
        told: list[Told] = []
        changes: dict[str, tuple[float, float, str]] = {}
        place = 0
        for event in events:
            for each in self._tell(event):
                if isinstance(each, _Change):
                    place = place if changes else len(told)
                    changes[each.node_id] = each.state
                    continue
                if changes and not (isinstance(each, Message) and each.type == "executing"):
                    told.insert(place, self._state(changes))
                    changes = {}
                told.append(each)
        if changes:
            told.insert(place, self._state(changes))
        self.lasting += [(each.type, each.data) for each in told if isinstance(each, Message) and each.lasting]
        return told

    def finished(self) -> Message:
        """That the job is in the history by now."""
        return Message("executing", {"node": None, "prompt_id": self.prompt_id})

    def interrupted(self) -> Message:
        """That a job was cancelled, if its run could not say so itself."""
        message = Message("execution_interrupted", self._ending() | {"node_id": "", "node_type": ""}, lasting=True)
        self.lasting.append((message.type, message.data))
        return message

    def broken(self, kind: str, sentence: str) -> Message:
        """That a job failed outside of any node."""
        message = Message("execution_error", self._error("", "", kind, sentence), lasting=True)
        self.lasting.append((message.type, message.data))
        return message

    def _tell(self, event: JobEvent) -> Iterator[Told | _Change]:
        match event:
            case RunStarted():
                yield Message("execution_start", self._stamped({}), lasting=True)
                cached = [node_id for node_id in event.reused if node_id in self.nodes]
                self.executed += cached
                yield Message("execution_cached", self._stamped({"nodes": cached}), lasting=True)
            case NodeStarted():
                self._note(event)
                if event.parent is None:
                    self._running[event.node_id] = (0, 1)
                    yield _Change(event.node_id, (0, 1, "running"))
                    yield self._executing(event.node_id)
            case NodeProgressed():
                self._note(event)
                if event.node_id in self.nodes:
                    yield from self._progress(event)
            case NodeFinished():
                self._note(event)
                if event.ui is not None:
                    output = json.loads(event.ui)
                    self._show(event.node_id, output)
                    shown = self._shown_at(event.node_id)
                    data = {"node": event.node_id, "display_node": shown, "output": output, "prompt_id": self.prompt_id}
                    yield Message("executed", data)
                if event.parent is None:
                    yield from self._done(event.node_id)
            case NodeReused():
                self._note(event)
            case NodeSkipped():
                self._note(event)
                if event.message is not None:
                    yield StatusText(self._shown_at(event.node_id), f"skipped: {event.message}")
                if event.parent is None:
                    yield from self._done(event.node_id)
            case NodeFailed():
                self._note(event)
                if event.parent is None:
                    self._running.pop(event.node_id, None)
                    self.failures.append(event.failure)
            case RunFinished():
                yield self._end(event)

    def _progress(self, event: NodeProgressed) -> Iterator[Told | _Change]:
        self._running[event.node_id] = (event.value, event.maximum)
        now = self.clock()
        last = event.value >= event.maximum
        result = event.preview is not None and event.preview.result
        if not (last or result) and now - self._told.get(event.node_id, float("-inf")) < PROGRESS_SECONDS:
            return
        self._told[event.node_id] = now
        yield _Change(event.node_id, (event.value, event.maximum, "running"))
        if event.preview is not None:
            described = {**self._ids(event.node_id), "image_type": event.preview.media_type}
            yield Picture(described, event.preview.data, result)
        data = {"value": event.value, "max": event.maximum, "prompt_id": self.prompt_id, "node": event.node_id}
        yield Message("progress", data, replaces=f"progress {self.prompt_id} {event.node_id}")

    def _done(self, node_id: str) -> Iterator[_Change]:
        value, most = self._running.pop(node_id, (1, 1))
        self.executed.append(node_id)
        yield _Change(node_id, (most if value else 1, most, "finished"))

    def _state(self, changes: Mapping[str, tuple[float, float, str]]) -> Message:
        """How far nodes are: those that changed, and those that run beside them."""
        entries = {node_id: (value, most, "running") for node_id, (value, most) in self._running.items()}
        entries |= changes
        nodes = {
            node_id: {"value": value, "max": most, "state": state, **self._ids(node_id)}
            for node_id, (value, most, state) in entries.items()
        }
        running = all(state == "running" for _, _, state in entries.values())
        mark = f"progress_state {self.prompt_id} {'+'.join(entries)}" if running else None
        return Message("progress_state", {"prompt_id": self.prompt_id, "nodes": nodes}, replaces=mark)

    def _executing(self, node_id: str) -> Message:
        return Message("executing", {"node": node_id, "display_node": node_id, "prompt_id": self.prompt_id})

    def _end(self, event: RunFinished) -> Message:
        if event.status == "cancelled":
            node_id = next(iter(self._running), "")
            data = self._ending() | {"node_id": node_id, "node_type": self.nodes.get(node_id, "")}
            return Message("execution_interrupted", data, lasting=True)
        if not self.failures:
            return Message("execution_success", self._stamped({}), lasting=True)
        failure = self.failures[0]
        data = self._error(failure.node_id or "", failure.class_name or "", failure.type, failure.message)
        return Message("execution_error", data, lasting=True)

    def _error(self, node_id: str, node_type: str, kind: str, sentence: str) -> Json:
        return self._ending() | {
            "node_id": node_id,
            "node_type": node_type,
            # Editors put the type in front themselves.
            "exception_message": sentence.removeprefix(f"{kind}: "),
            "exception_type": kind,
            # Lines of source and paths of this machine are nobody's business; the sentence says what to do.
            "traceback": [],
            "current_inputs": {},
            "current_outputs": list(self.outputs),
        }

    def _ending(self) -> Json:
        return self._stamped({"executed": list(self.executed)})

    def _stamped(self, data: Json) -> Json:
        return {"prompt_id": self.prompt_id, **data, "timestamp": milliseconds()}

    def _show(self, node_id: str, output: Json) -> None:
        self.outputs[node_id] = output
        self.meta[node_id] = self._ids(node_id)

    def _note(self, event: NodeEvent) -> None:
        self._parents[event.node_id] = event.parent

    def _ids(self, node_id: str) -> Json:
        shown = self._shown_at(node_id)
        return {
            "node_id": node_id,
            "prompt_id": self.prompt_id,
            "display_node_id": shown,
            "parent_node_id": self._parents.get(node_id),
            "real_node_id": shown,
        }

    def _shown_at(self, node_id: str) -> str:
        """The node of the document at which a step is shown: itself, or what it is a part of.

        A step of a turn of a loop is a copy of a node of the document, and is shown there.
        """
        at = node_id
        while at not in self.nodes:
            parent = self._parents.get(at)
            if parent is None:
                return at
            _, _, copied = at.removeprefix(f"{parent}.").partition(".")
            if copied in self.nodes:
                return copied
            at = parent
        return at
