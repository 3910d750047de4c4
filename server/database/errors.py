"""What the database can refuse, each a sentence for whoever asked."""

from datetime import timedelta


class DatabaseError(Exception):
    """Everything that can go wrong here."""


class DatabaseUnusable(DatabaseError):
    """The database cannot be opened, and waiting does not help."""

    def __init__(self, where: str, why: str) -> None:
        self.where = where
        super().__init__(f"the database {where} cannot be used: {why}")


class DatabaseUnavailable(DatabaseError):
    """The database did not answer, or refused to write. Nothing of what was asked for is done; later it may work."""

    def __init__(self, where: str, why: str) -> None:
        self.where = where
        super().__init__(f"the database {where} does not answer: {why}")


class WrongRequest(DatabaseError, ValueError):
    """What was asked for cannot be: it is no JSON, no number, no text that can be stored."""


class JobExists(DatabaseError):
    """A new job has the id of another."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"there is a job {job_id} already; leave the id out or make a new one")


class JobNotFound(DatabaseError):
    """There is no such job, or it is somebody else's."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"there is no job {job_id}")


class JobNotRetryable(DatabaseError):
    """The job is not over, or it went well."""

    def __init__(self, job_id: str, state: str) -> None:
        self.job_id = job_id
        self.state = state
        super().__init__(f"job {job_id} is {state}; only failed and cancelled jobs can be tried again")


class TooManyJobs(DatabaseError):
    """An owner would have more unfinished jobs than the limit."""

    def __init__(self, most: int, unfinished: int, new: int) -> None:
        self.most = most
        super().__init__(
            f"at most {most} jobs may wait or run at once: there are {unfinished}, and {new} more were asked for"
        )


class QueueDraining(DatabaseError):
    """The queue takes no new jobs."""

    def __init__(self) -> None:
        super().__init__("the queue is being drained and takes no new jobs")


class LeaseLost(DatabaseError):
    """A worker speaks of a job that it does not hold any more. What it made of it is not recorded."""

    def __init__(self, job_id: str, worker: str, lease: timedelta) -> None:
        self.job_id = job_id
        self.worker = worker
        super().__init__(
            f"worker {worker} does not hold job {job_id} any more: "
            f"it was given back, or not heard of for {lease.total_seconds():g} s"
        )
