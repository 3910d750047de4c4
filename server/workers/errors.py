"""What can go wrong with workers, each a sentence for whoever has to know."""

from dataclasses import dataclass
from typing import Literal

CauseKind = Literal["signal", "exit", "out_of_memory", "hang", "stuck", "nonsense", "start"]
"""`stuck`: it did not stop when its job was cancelled. `nonsense`: it said something that cannot be understood.
`start`: it was not ready in time."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a worker ended. `text` follows its name in a sentence; exit code and signal as far as there are any."""

    kind: CauseKind
    text: str
    exit_code: int | None = None
    signal: str | None = None


class WorkerError(Exception):
    """Everything that can go wrong here."""


class WorkerDied(WorkerError):
    """A worker ended over a job, or over a request. The job may be given to another one."""

    def __init__(self, worker: str, cause: Cause, job_id: str | None = None) -> None:
        self.worker = worker
        self.cause = cause
        self.job_id = job_id
        super().__init__(f"worker {worker} {cause.text}")


class WorkerCannotStart(WorkerError):
    """A worker cannot take jobs, for a reason that somebody can mend: the sentence is its own."""

    def __init__(self, worker: str, reason: str) -> None:
        self.worker = worker
        self.reason = reason
        super().__init__(reason)


class RequestRefused(WorkerError):
    """A worker could not do what it was asked for beside its jobs."""


class NoWorker(WorkerError):
    """There is no worker, and none can be started at the moment."""


class PoolClosed(WorkerError):
    """The pool takes nothing more."""

    def __init__(self) -> None:
        super().__init__("the workers have been told to stop")
