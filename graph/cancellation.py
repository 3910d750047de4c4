"""Cancelling a run: asked from anywhere, noticed between nodes and at every report of progress."""

from collections.abc import Callable
from typing import Any

from graph.errors import Cancelled
from graph.values import Service


class Cancellation(Service):
    """Tells a run to stop. Safe to use from any thread and from a signal handler."""

    def __init__(self) -> None:
        self._requested = False

    @property
    def requested(self) -> bool:
        return self._requested

    def cancel(self) -> None:
        self._requested = True

    def check(self) -> None:
        """Raise Cancelled if the run is to stop. Long-running nodes call this, or report progress."""
        if self.requested:
            raise Cancelled("the run was cancelled")


class StepCancellation(Cancellation):
    """What a step sees of the cancellation of its run: to the step it is the same if the run goes on without it."""

    def __init__(self, whole: Cancellation, left_behind: Callable[[], bool]) -> None:
        super().__init__()
        self._whole = whole
        self._left_behind = left_behind

    @property
    def requested(self) -> bool:
        return self._whole.requested or self._left_behind()

    def cancel(self) -> None:
        self._whole.cancel()


class Progress(Service):
    """How far a node is: `progress(value, maximum)`. Raises Cancelled when the run is to stop."""

    def __init__(self, report: Callable[[float, float, Any], None], cancellation: Cancellation) -> None:
        self._report = report
        self._cancellation = cancellation

    def __call__(self, value: float, maximum: float, preview: Any = None) -> None:
        self._cancellation.check()
        self._report(value, maximum, preview)
