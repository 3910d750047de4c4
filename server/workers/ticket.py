"""A job on its way through the pool, for whoever waits for it."""

from asyncio import Future
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from server.workers.messages import Job, JobEvent, JobResult

OnEvents = Callable[[Sequence[JobEvent]], None]
"""Is told what happens to a job, in order; together what was heard of at once."""


@dataclass(slots=True, eq=False)
class Ticket:
    """A job, who listens to it, and what becomes of it."""

    job: Job
    on_events: OnEvents
    result: "Future[JobResult]"
    cancelled: bool = False
    error: Exception | None = None
    """What `on_events` raised."""

    def happened(self, events: Sequence[JobEvent]) -> None:
        """Tell whoever asked for the job. Raises what they do, once."""
        if self.error is None:
            try:
                self.on_events(events)
            except Exception as error:
                self.error = error
                raise

    def end(self, result: JobResult) -> None:
        """The job is over."""
        if not self.result.done():
            if self.error is None:
                self.result.set_result(result)
            else:
                self.result.set_exception(self.error)

    def fail(self, error: Exception) -> None:
        """The job is not over, but nothing more will come of it here."""
        if not self.result.done():
            self.result.set_exception(self.error or error)
