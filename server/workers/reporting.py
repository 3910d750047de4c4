"""What happens in a run, put into messages while it happens."""

import json
import logging
import math
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, cast

from pydantic_core import to_jsonable_python

from graph import events as graph_events
from graph.events import Event
from graph.previews import Delivery
from graph.values import Ui
from server.workers.failures import failure_of
from server.workers.messages import (
    Happened,
    JobEvent,
    NodeFailed,
    NodeFinished,
    NodeProgressed,
    NodeReused,
    NodeSkipped,
    NodeStarted,
    Picture,
    RunFinished,
    RunStarted,
)
from server.workers.options import PreviewOptions
from server.workers.outbox import Outbox
from server.workers.previews import encoded

log = logging.getLogger("latentloom.worker")


class Reporter:
    """Tells of one job. It is called by the threads of the run, one event at a time."""

    def __init__(self, job_id: str, outbox: Outbox, previews: PreviewOptions) -> None:
        self.ran = 0
        self.reused = 0
        self._job_id = job_id
        self._outbox = outbox
        self._previews = previews
        self._began = time.perf_counter()
        self._next_preview = 0.0
        self._warned = False

    @property
    def seconds(self) -> float:
        """Since the job began."""
        return time.perf_counter() - self._began

    def __call__(self, event: Event) -> None:
        if isinstance(event, graph_events.NodeProgressed):
            if math.isfinite(event.value) and math.isfinite(event.maximum):
                report = partial(self._progressed, event, self.seconds)
                if isinstance(event.preview, Delivery):
                    self._outbox.tell(report())
                else:
                    self._outbox.replace(event.node_id, report)
            return
        if isinstance(event, graph_events.NodeEvent):
            self._outbox.settle(event.node_id)
        self._outbox.tell(self._happened(self._message(event)))

    def _message(self, event: Event) -> JobEvent:
        at = self.seconds
        match event:
            case graph_events.RunStarted():
                return RunStarted(at=at, needed=event.needed, reused=event.reused)
            case graph_events.RunFinished():
                return RunFinished(at=at, status=event.status, seconds=event.seconds)
            case graph_events.NodeStarted():
                return NodeStarted(**self._place(event, at), reasons=event.reasons)
            case graph_events.NodeReused():
                self.reused += 1
                return NodeReused(**self._place(event, at))
            case graph_events.NodeFinished():
                self.ran += 1
                ui, files = (None, ()) if event.ui is None else (shown(event.ui), files_of(event.ui))
                return NodeFinished(**self._place(event, at), seconds=event.seconds, ui=ui, files=files)
            case graph_events.NodeSkipped():
                return NodeSkipped(**self._place(event, at), message=event.message)
            case graph_events.NodeFailed():
                return NodeFailed(**self._place(event, at), failure=failure_of(event.error))
            case graph_events.NodeProgressed():
                return self._progress(event, at)

    def _progressed(self, event: graph_events.NodeProgressed, at: float) -> Happened:
        return self._happened(self._progress(event, at))

    def _progress(self, event: graph_events.NodeProgressed, at: float) -> NodeProgressed:
        preview = self._picture(event.preview)
        return NodeProgressed(**self._place(event, at), value=event.value, maximum=event.maximum, preview=preview)

    def _picture(self, preview: object) -> Picture | None:
        most = self._previews.most_per_second
        now = time.perf_counter()
        if not isinstance(preview, Delivery):
            if preview is None or not most or now < self._next_preview:
                return None
            self._next_preview = now + 1 / most
        try:
            return encoded(preview, self._previews)
        except Exception:  # of whatever a node gave
            if not self._warned:
                log.warning("job %s: a preview cannot be drawn", self._job_id, exc_info=True)
            self._warned = True
            return None

    def _happened(self, event: JobEvent) -> Happened:
        return Happened(job_id=self._job_id, event=event)

    def _place(self, event: graph_events.NodeEvent, at: float) -> dict[str, Any]:
        return {
            "at": at,
            "node_id": event.node_id,
            "class_name": event.class_name,
            "title": event.title,
            "parent": event.parent,
        }


def shown(ui: Ui) -> bytes:
    """What an output has to show, as a JSON object; what is no JSON in it, as text."""
    try:
        value = to_jsonable_python(ui.to_json(), inf_nan_mode="null", bytes_mode="base64", serialize_unknown=True)
        return json.dumps(value, allow_nan=False).encode()
    except Exception as error:  # of whatever a node gave
        log.warning("what an output has to show is no JSON: %s", error, exc_info=True)
        return b"{}"


def files_of(ui: Ui) -> tuple[str, ...]:
    """The files that an output wrote, if it says so in `paths`."""
    paths: object = getattr(ui, "paths", ())
    if not isinstance(paths, Iterable):
        return ()
    return tuple(str(path) for path in cast("Iterable[object]", paths) if isinstance(path, Path))
