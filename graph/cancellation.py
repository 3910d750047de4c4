"""Cancelling a run: asked from anywhere, noticed between nodes and at every report of progress."""

from collections.abc import Callable
from typing import Any

from graph.errors import Cancelled
from graph.values import Service


class Cancellation(Service):
    """Tells a run to stop. Safe to use from any thread and from a signal handler."""

    def __init__(self) -> None:
        self.requested = False

    def cancel(self) -> None:
        self.requested = True

    def check(self) -> None:
        """Raise Cancelled if the run is to stop. Long-running nodes call this, or report progress."""
        if self.requested:
            raise Cancelled("the run was cancelled")


class Progress(Service):
    """How far a node is: `progress(value, maximum)`. Raises Cancelled when the run is to stop."""

    def __init__(self, report: Callable[[float, float, Any], None], cancellation: Cancellation) -> None:
        self._report = report
        self._cancellation = cancellation

    def __call__(self, value: float, maximum: float, preview: Any = None) -> None:
        self._cancellation.check()
        self._report(value, maximum, preview)
