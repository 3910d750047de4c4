"""New jobs on their way to the disk: those that arrive while one transaction is written share the next.

A commit costs as much for a hundred jobs as for one, so a crowd waits little longer than one client alone.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from sqlalchemy import insert, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from server.database.chunks import chunks
from server.database.database import Collision, Database
from server.database.documents import EMPTY
from server.database.errors import DatabaseError, JobExists, QueueDraining, TooManyJobs
from server.database.jobs import Accepted, NewJob
from server.database.rows import new_row
from server.database.stored_documents import store
from server.database.tables import job, queue, webhook
from server.database.tallies import Change, counts, enter

MOST_TOGETHER = 200
"""Jobs of different submissions in one transaction, and rows of one statement: preparing more would hold up the event
loop for longer than a few milliseconds."""

Answer = Sequence[Accepted] | DatabaseError


@dataclass(frozen=True, slots=True, eq=False)
class _Submission:
    jobs: Sequence[NewJob]
    most_unfinished: int | None
    answer: "asyncio.Future[Sequence[Accepted]]"


class Submissions:
    """Takes jobs to the disk."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[_Submission] = []
        self._writer: asyncio.Task[None] | None = None

    async def submit(self, jobs: Sequence[NewJob], most_unfinished: int | None) -> Sequence[Accepted]:
        submission = _Submission(tuple(jobs), most_unfinished, asyncio.get_running_loop().create_future())
        self._waiting.append(submission)
        if self._writer is None or self._writer.done():
            self._writer = self._database.begin(self._write_waiting())
        return await submission.answer

    async def _write_waiting(self) -> None:
        while self._waiting:
            together, now = self._next(), self._database.now()
            try:
                answers = await self._database.write(partial(_insert, together=together, now=now))
            except Exception as error:
                answers = [error] * len(together)
            for submission, answer in zip(together, answers, strict=True):
                if submission.answer.done():  # whoever asked has gone; the jobs are accepted all the same
                    continue
                if isinstance(answer, Exception):
                    submission.answer.set_exception(answer)
                else:
                    submission.answer.set_result(answer)

    def _next(self) -> Sequence[_Submission]:
        """Submissions for one transaction: those that came first, and at least one."""
        jobs = 0
        for count, submission in enumerate(self._waiting):
            jobs += len(submission.jobs)
            if count and jobs > MOST_TOGETHER:
                break
        else:
            count = len(self._waiting)
        together, self._waiting = self._waiting[:count], self._waiting[count:]
        return together


def _insert(connection: Connection, together: Sequence[_Submission], now: datetime) -> Sequence[Answer]:
    """Write what can be written, each submission as a whole or not at all. Returns what each is told."""
    refusals = _refusals(connection, together)
    accepted = [new for submission in together if submission not in refusals for new in submission.jobs]
    numbers = _numbers(connection, accepted)
    documents = [new.workflow for new in accepted] + [new.extra for new in accepted if new.extra != EMPTY]
    places = store(connection, documents)
    try:
        for some in chunks(accepted, MOST_TOGETHER):
            connection.execute(insert(job), [new_row(new, numbers[new.id], now, places) for new in some])
    except IntegrityError as error:  # another process has just taken one of the ids
        raise Collision from error
    _add_webhooks(connection, accepted)
    enter(connection, Change((new.owner, "queued") for new in accepted))
    return [
        refusals.get(submission) or [Accepted(new.id, numbers[new.id], now) for new in submission.jobs]
        for submission in together
    ]


def _refusals(connection: Connection, together: Sequence[_Submission]) -> dict[_Submission, DatabaseError]:
    if mode_for_new_jobs(connection) == "draining":
        return {submission: QueueDraining() for submission in together}
    taken = set[str]()
    for some in chunks([new.id for submission in together for new in submission.jobs]):
        taken.update(connection.scalars(select(job.c.id).where(job.c.id.in_(some))))
    unfinished = Counter[str]()
    for owner in {new.owner for asked in together if asked.most_unfinished is not None for new in asked.jobs}:
        unfinished[owner] = counts(connection, owner).unfinished
    refusals: dict[_Submission, DatabaseError] = {}
    for submission in together:
        refusal = _refusal(submission, taken, unfinished)
        if refusal is not None:
            refusals[submission] = refusal
            continue
        taken.update(new.id for new in submission.jobs)
        unfinished.update(new.owner for new in submission.jobs)
    return refusals


def _refusal(submission: _Submission, taken: Set[str], unfinished: Mapping[str, int]) -> DatabaseError | None:
    ids = Counter(new.id for new in submission.jobs)
    for job_id, times in ids.items():
        if job_id in taken or times > 1:
            return JobExists(job_id)
    most = submission.most_unfinished
    for owner, more in Counter(new.owner for new in submission.jobs).items():
        if most is not None and unfinished[owner] + more > most:
            return TooManyJobs(most, unfinished[owner], more)
    return None


def _numbers(connection: Connection, jobs: Sequence[NewJob]) -> Mapping[str, float]:
    """The number of each job by its id. Those that come with one do not advance the count."""
    unnumbered = [new for new in jobs if new.number is None]
    numbers = {new.id: float(new.number) for new in jobs if new.number is not None}
    if unnumbered:
        last = next_numbers(connection, len(unnumbered))
        for number, new in enumerate(unnumbered, last - len(unnumbered) + 1):
            numbers[new.id] = float(-number if new.front else number)
    return numbers


def mode_for_new_jobs(connection: Connection) -> str:
    """The queue's mode. Others who put jobs into it wait until this is committed, so none of them exceeds a limit."""
    return connection.execute(select(queue.c.mode).with_for_update()).scalar_one()


def next_numbers(connection: Connection, count: int) -> int:
    """Take so many numbers, and return the last of them; the first job of all has number 1."""
    taken = update(queue).values(numbered=queue.c.numbered + count).returning(queue.c.numbered)
    return connection.execute(taken).scalar_one()


def _add_webhooks(connection: Connection, jobs: Sequence[NewJob]) -> None:
    for some in chunks([new for new in jobs if new.webhook is not None]):
        ids = select(job.c.id, job.c.seq).where(job.c.id.in_([new.id for new in some]))
        rows = {job_id: seq for job_id, seq in connection.execute(ids)}
        connection.execute(
            insert(webhook),
            [
                {
                    "job": rows[new.id],
                    "url": new.webhook.url,
                    "secret": new.webhook.secret,
                    "endings": None if new.webhook.endings is None else ",".join(new.webhook.endings),
                    "state": "waiting",
                    "attempts": 0,
                }
                for new in some
                if new.webhook is not None
            ],
        )
