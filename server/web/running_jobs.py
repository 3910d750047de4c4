"""Jobs that a server is at: what workers are told of them, and how far they are."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from server.database.jobs import Claim
from server.web.diary import Diary
from server.web.files.place_names import PlaceNames
from server.web.narrator import Narrator
from server.workers.messages import Job, JobEvent, JobResult
from server.workers.pool import PoolStatus


class Workers(Protocol):
    """Whoever runs jobs. The pool of workers does."""

    async def run(self, job: Job, on_events: Callable[[Sequence[JobEvent]], None]) -> JobResult:
        """Run a job on a free worker. Raises WorkerDied, or another WorkerError if it was not begun."""
        ...

    def cancel(self, job_id: str) -> object:
        """Stop a job that runs."""
        ...

    async def wait_until(self, condition: Callable[[PoolStatus], bool]) -> PoolStatus:
        """Wait for a status. Raises WorkerError when there will never be one like that."""
        ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a worker is to run of a claimed job, the classes of its nodes by id, and how its places are called."""

    job: Job
    nodes: Mapping[str, str]
    names: PlaceNames


class CannotRun(Exception):
    """A job cannot be run as it was asked for; the sentence says why."""


Prepare = Callable[[Claim], Awaitable[Prepared]]
"""Makes what a worker is to run: applies overrides, adds what pictures are to carry. Raises CannotRun."""


@dataclass(slots=True, eq=False)
class Running:
    """A job that a lane is at."""

    claim: Claim
    narrator: Narrator
    diary: Diary
    cancelling: bool = False
    lost: bool = False
    """Somebody else has the job by now."""
    at_worker: bool = False
    node: str | None = None
    """The node that began last."""
    result: JobResult | None = None
    """What came of it, as its worker says."""

    @property
    def owner(self) -> str:
        return self.claim.job.owner

    @property
    def client_id(self) -> str | None:
        return self.claim.job.client_id
