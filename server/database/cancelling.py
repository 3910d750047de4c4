"""Stopping jobs, one or many."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

from sqlalchemy import select, update
from sqlalchemy.engine import Connection

from server.database.chunks import chunks
from server.database.jobs import State, is_job_id
from server.database.leases import announce, over
from server.database.owners import belongs
from server.database.tables import QUEUED, job
from server.database.tallies import Change, enter, moved

Cancelled = Literal["cancelled", "asked", "over", "unknown"]
"""`cancelled`: it waited, and will not run. `asked`: it runs, and its worker is told. `over`: it had ended before."""
ANSWERS: Mapping[State, Cancelled] = {"queued": "cancelled", "running": "asked"}
CANCELLED_AT_ONCE = 500
"""Jobs of one transaction, so that others may write in between."""


def cancel(connection: Connection, job_ids: Sequence[str], owner: str | None, now: datetime) -> Mapping[str, Cancelled]:
    """Cancel those that wait, and ask those that run to stop."""
    answers: dict[str, Cancelled] = {job_id: "unknown" for job_id in job_ids}
    for some in chunks([job_id for job_id in answers if is_job_id(job_id)]):
        query = select(job.c.seq, job.c.id, job.c.owner, job.c.state).where(job.c.id.in_(some), belongs(owner))
        rows = connection.execute(query.order_by(job.c.seq).with_for_update()).mappings().all()
        running = [row["seq"] for row in rows if row["state"] == "running"]
        if running:
            connection.execute(update(job).where(job.c.seq.in_(running)).values(cancelling=True))
        waiting = [(row["seq"], row["owner"]) for row in rows if row["state"] == "queued"]
        _end(connection, waiting, now)
        answers.update({row["id"]: ANSWERS.get(row["state"], "over") for row in rows})
    return answers


def newest(connection: Connection) -> int:
    """The newest job of all."""
    return connection.execute(select(job.c.seq).order_by(job.c.seq.desc()).limit(1)).scalar() or 0


def cancel_waiting(connection: Connection, owner: str | None, upto: int, now: datetime) -> int:
    """Cancel some of the jobs that wait, so that others may write in between. Returns how many; 0: no more."""
    query = select(job.c.seq, job.c.owner).where(QUEUED, job.c.seq <= upto, belongs(owner)).limit(CANCELLED_AT_ONCE)
    urgent_first = query.order_by(job.c.priority, job.c.number, job.c.seq)
    waiting = [(seq, owner) for seq, owner in connection.execute(urgent_first.with_for_update())]
    _end(connection, waiting, now)
    return len(waiting)


def _end(connection: Connection, waiting: Sequence[tuple[int, str]], now: datetime) -> None:
    """These jobs, each with its owner, will not run."""
    seqs = [seq for seq, _ in waiting]
    if not seqs:
        return
    connection.execute(update(job).where(job.c.seq.in_(seqs)).values(**over(now), state="cancelled"))
    announce(connection, seqs, now)
    change = Change()
    for _, owner in waiting:
        change.update(moved(owner, "queued", "cancelled"))
    enter(connection, change)
