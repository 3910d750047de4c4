"""Claims: who works on what and for how long, how a job ends, and what becomes of it when its worker is gone."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, and_, bindparam, case, func, or_, select, true, type_coerce, update
from sqlalchemy.engine import Connection

from server.database.chunks import chunks
from server.database.jobs import MOST_ATTEMPTS, Claim, JobError, Lease, Outcome, State
from server.database.rows import WHOLE, Row, job_of, loss_entry, outcome_row
from server.database.tables import QUEUED, RUNNING, Moment, job, milliseconds, queue, webhook
from server.database.tallies import Change, enter, moved

_most_urgent = (
    select(job.c.seq)
    .where(QUEUED, select(queue.c.mode).scalar_subquery() != "paused")
    .order_by(job.c.priority, job.c.number, job.c.seq)
    .limit(1)
    # Where several may write at once, each takes the most urgent job that no other one is just taking.
    .with_for_update(skip_locked=True, of=job)
    .correlate(None)
    .scalar_subquery()
)
TAKE = (
    update(job)
    .where(job.c.seq == _most_urgent)
    .values(
        state="running",
        worker=bindparam("by"),
        started=bindparam("now", type_=Moment),
        expires=bindparam("until", type_=Moment),
        attempts=job.c.attempts + 1,
        claims=job.c.claims + 1,
    )
    .returning(job.c.seq)
)
TAKEN = WHOLE.where(job.c.seq == bindparam("taken"))


@dataclass(frozen=True, slots=True)
class Hold:
    """A lease that goes on. `cancelling`: the worker should stop, and finish the job as cancelled."""

    expires: datetime
    cancelling: bool


@dataclass(frozen=True, slots=True)
class TakenBack:
    """A job that was taken from its worker, and what it is now: queued again, failed, or cancelled."""

    job_id: str
    owner: str
    client_id: str | None
    state: State


def take(connection: Connection, worker: str, now: datetime, until: datetime) -> Claim | None:
    """Claim the most urgent job."""
    seq = connection.execute(TAKE, {"by": worker, "now": now, "until": until}).scalar()
    if seq is None:
        return None
    row = connection.execute(TAKEN, {"taken": seq}).mappings().one()
    enter(connection, moved(row["owner"], "queued", "running"))
    taken = job_of(row)
    return Claim(Lease(taken.id, worker, row["claims"]), until, taken, row["secret"] or {})


def held(lease: Lease) -> ColumnElement[bool]:
    """The job of a lease, while the lease is good."""
    return and_(RUNNING, job.c.id == lease.job_id, job.c.worker == lease.worker, job.c.claims == lease.number)


def extend(connection: Connection, lease: Lease, until: datetime) -> Hold | None:
    """None: the lease is lost."""
    extended = update(job).where(held(lease)).values(expires=until).returning(job.c.cancelling)
    cancelling = connection.execute(extended).scalar()
    return None if cancelling is None else Hold(until, cancelling)


def finish(connection: Connection, lease: Lease, outcome: Outcome, now: datetime) -> bool:
    """False: the lease is lost."""
    finished = update(job).where(held(lease)).values(**over(now), **outcome_row(outcome))
    row = connection.execute(finished.returning(job.c.seq, job.c.owner)).first()
    if row is None:
        return False
    seq, owner = row
    announce(connection, [seq], now)
    enter(connection, moved(owner, "running", outcome.state))
    return True


def take_back(
    connection: Connection, which: ColumnElement[bool], now: datetime, cause: str | None = None
) -> Sequence[TakenBack]:
    """Take jobs from their workers. With a cause, the worker died over it and the attempt counts."""
    query = select(job).where(RUNNING, which).order_by(job.c.expires).with_for_update()
    change = Change()
    taken: list[TakenBack] = []
    ended: list[int] = []
    for row in connection.execute(query).mappings().all():
        values = _afterwards(row, now, cause)
        connection.execute(update(job).where(job.c.seq == row["seq"]).values(**values))
        taken.append(TakenBack(row["id"], row["owner"], row["client_id"], values["state"]))
        change.update(moved(row["owner"], "running", values["state"]))
        if values["state"] != "queued":
            ended.append(row["seq"])
    announce(connection, ended, now)
    enter(connection, change)
    return taken


def _afterwards(row: Row, now: datetime, cause: str | None) -> Mapping[str, Any]:
    """What a job is when its worker is gone."""
    losses: list[Any] = row["losses"] or []
    attempts = row["attempts"] - 1
    if cause is not None:
        losses = [*losses, loss_entry(row["worker"], cause, now, row["started"])]
        attempts += 1
    values = {"attempts": attempts, "losses": losses or None}
    if row["cancelling"]:
        return {**over(now), **values, "state": "cancelled"}
    if cause is not None and attempts >= MOST_ATTEMPTS:
        error = JobError(type="WorkerDied", message=f"its worker died three times; last: {cause}")
        return {**over(now), **values, "state": "failed", "error": asdict(error)}
    return {**values, "state": "queued", "worker": None, "started": None, "expires": None}


def over(now: datetime) -> Mapping[str, Any]:
    """What is the same for all jobs that end: among other things, their secret is forgotten."""
    began = type_coerce(job.c.started, BigInteger)
    ended = milliseconds(now)
    duration = case((began < ended, ended - began), else_=0)  # 0 as well if it never began, or a clock was set back
    return {"finished": now, "duration": duration, "expires": None, "cancelling": False, "secret": None}


def announce(connection: Connection, ended: Sequence[int], now: datetime) -> None:
    """Jobs are over: tell those who wanted to be told."""
    for some in chunks(ended):
        ending = select(job.c.state).where(job.c.seq == webhook.c.job).scalar_subquery()
        # No ending is a part of another one's name.
        wanted = or_(webhook.c.endings.is_(None), webhook.c.endings.contains(ending))
        due = update(webhook).where(webhook.c.job.in_(some), webhook.c.state == "waiting", wanted).values(due=now)
        connection.execute(due)


def workers_called(prefix: str) -> ColumnElement[bool]:
    """Jobs of workers whose names begin like this."""
    return true() if not prefix else func.substr(job.c.worker, 1, len(prefix)) == prefix
