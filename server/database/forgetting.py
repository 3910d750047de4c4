"""Deleting jobs that are over, with everything that hangs on them."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, delete, func, select, union_all
from sqlalchemy.engine import Connection

from server.database.jobs import ENDINGS, Ending
from server.database.rows import Query
from server.database.stored_documents import drop_unused
from server.database.tables import job, tally
from server.database.tallies import Change, enter

DELETED_AT_ONCE = 100
"""Jobs of one transaction, so that others may write in between."""

Conditions = Sequence[ColumnElement[bool]]


def forget(connection: Connection, seqs: Sequence[int], which: Conditions = ()) -> int:
    """Delete those of these jobs that are over and fulfil everything. Returns how many."""
    query = select(job.c.seq, job.c.owner, job.c.state, job.c.workflow, job.c.extra)
    over = query.where(job.c.seq.in_(seqs), job.c.state.in_(ENDINGS), *which)
    rows = connection.execute(over.order_by(job.c.seq).with_for_update()).mappings().all()
    if not rows:
        return 0
    # Events and webhooks go with their jobs.
    connection.execute(delete(job).where(job.c.seq.in_([row["seq"] for row in rows])))
    drop_unused(connection, [row[name] for row in rows for name in ("workflow", "extra") if row[name]])
    change = Change()
    for row in rows:
        change[row["owner"], row["state"]] -= 1
    enter(connection, change)
    return len(rows)


def forget_named(connection: Connection, job_ids: Sequence[str], which: Conditions) -> int:
    """Delete those of these jobs that are over and fulfil everything. Returns how many."""
    seqs = connection.scalars(select(job.c.seq).where(job.c.id.in_(job_ids), *which))
    return forget(connection, seqs.all())


def forget_oldest(connection: Connection, states: Sequence[Ending], which: Conditions) -> int:
    """Delete some of the jobs that fulfil everything, the oldest first. Returns how many; 0: no more."""
    return forget(connection, _oldest(connection, states, DELETED_AT_ONCE, which), which)


def forget_beyond(connection: Connection, most: int) -> int:
    """Delete some of the jobs by which there are too many. Returns how many; 0: there are not."""
    query = select(func.sum(tally.c.jobs)).where(tally.c.state.in_(ENDINGS))
    excess = int(connection.execute(query).scalar() or 0) - most
    if excess <= 0:
        return 0
    return forget(connection, _oldest(connection, ENDINGS, min(excess, DELETED_AT_ONCE)))


def ended_before(moment: datetime) -> Conditions:
    # The first condition follows from the second. There is an index for it.
    return job.c.created < moment, job.c.finished < moment


def _oldest(connection: Connection, states: Sequence[Ending], count: int, which: Conditions = ()) -> Sequence[int]:
    def of(state: Ending) -> Query:
        found = select(job.c.seq, job.c.created).where(job.c.state == state, *which)
        return found.order_by(job.c.created, job.c.seq).limit(count)

    found = union_all(*(select(of(state).subquery()) for state in states)).subquery()
    query = select(found.c.seq).order_by(found.c.created, found.c.seq).limit(count)
    return connection.scalars(query).all()
