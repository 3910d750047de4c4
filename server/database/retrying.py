"""Trying a job again that failed or was cancelled."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.engine import Connection

from server.database.errors import JobNotFound, JobNotRetryable, QueueDraining, TooManyJobs
from server.database.jobs import Accepted
from server.database.owners import belongs
from server.database.rows import NOT_STARTED
from server.database.submissions import mode_for_new_jobs, next_numbers
from server.database.tables import job, webhook
from server.database.tallies import counts, enter, moved


def retry(
    connection: Connection,
    job_id: str,
    owner: str | None,
    secret: Mapping[str, Any] | None,
    most_unfinished: int | None,
) -> Accepted:
    """Queue it as if it were new. Its events stay."""
    query = select(job.c.seq, job.c.owner, job.c.state, job.c.created).where(job.c.id == job_id, belongs(owner))
    row = connection.execute(query.with_for_update()).mappings().first()
    if row is None:
        raise JobNotFound(job_id)
    if row["state"] not in ("failed", "cancelled"):
        raise JobNotRetryable(job_id, row["state"])
    if mode_for_new_jobs(connection) == "draining":
        raise QueueDraining()
    unfinished = counts(connection, row["owner"]).unfinished
    if most_unfinished is not None and unfinished >= most_unfinished:
        raise TooManyJobs(most_unfinished, unfinished, 1)
    number = float(next_numbers(connection, 1))
    again = {**NOT_STARTED, "state": "queued", "number": number, "secret": dict(secret or {}) or None}
    connection.execute(update(job).where(job.c.seq == row["seq"]).values(**again))
    hook = {"state": "waiting", "attempts": 0, "due": None, "failure": None}
    connection.execute(update(webhook).where(webhook.c.job == row["seq"]).values(**hook))
    enter(connection, moved(row["owner"], row["state"], "queued"))
    return Accepted(job_id, number, row["created"])
