"""The queue: jobs wait in it, workers claim them one by one, and a job whose worker dies is offered again.

At any time at most one worker holds a job. It holds it by a lease, which may be taken away when nothing is heard of it
for a while; what a worker says of a job that it does not hold any more is refused.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

from sqlalchemy import select, update
from sqlalchemy.engine import Connection

from server.database.cancelling import Cancelled, cancel, cancel_waiting, newest
from server.database.database import Database
from server.database.errors import JobNotFound, LeaseLost
from server.database.jobs import Accepted, Claim, Lease, NewJob, Outcome, is_job_id
from server.database.leases import Hold, TakenBack, extend, finish, held, take, take_back, workers_called
from server.database.retrying import retry
from server.database.submissions import Submissions
from server.database.tables import job, queue
from server.database.texts import storable

Mode = Literal["open", "paused", "draining"]
"""`paused`: no job is offered. `draining`: those that wait are offered, and no new one is taken."""

LEASE = timedelta(seconds=30)


class JobQueue:
    """The queue of a database. Any number of processes may have one for the same database.

    Wherever an `owner` can be given, other owners' jobs are as if they were not there.
    All methods raise DatabaseUnavailable when the database does not answer; then nothing has changed.
    """

    def __init__(self, database: Database, lease: timedelta = LEASE) -> None:
        """
        Args:
            lease: for how long a claim holds without a word of its worker.
        """
        self._database = database
        self._lease = lease
        self._submissions = Submissions(database)

    def now(self) -> datetime:
        """The time that jobs are stamped with."""
        return self._database.now()

    # In

    async def submit(self, jobs: Sequence[NewJob], most_unfinished: int | None = None) -> Sequence[Accepted]:
        """Take jobs, all of them or none. They are on disk when this returns.

        Args:
            most_unfinished: how many jobs an owner of these may have waiting and running, these included.

        Raises:
            JobExists: an id is taken, by whomever.
            TooManyJobs: there would be more unfinished jobs than that.
            QueueDraining: no jobs are taken.
        """
        return await self._submissions.submit(jobs, most_unfinished)

    async def retry(
        self,
        job_id: str,
        owner: str | None = None,
        secret: Mapping[str, Any] | None = None,
        most_unfinished: int | None = None,
    ) -> Accepted:
        """Put a failed or cancelled job behind all others of its class, as if it had never been tried.

        Args:
            secret: as the job was submitted with; it was forgotten when the job was over.

        Raises:
            JobNotFound, JobNotRetryable, TooManyJobs, QueueDraining
        """
        if not is_job_id(job_id):
            raise JobNotFound(job_id)
        again = partial(retry, job_id=job_id, owner=owner, secret=secret, most_unfinished=most_unfinished)
        return await self._database.write(again)

    # Out

    async def claim(self, worker: str) -> Claim | None:
        """Take the most urgent job, by class, then number, then age. None: there is nothing to do.

        Args:
            worker: a name that no other living worker has, up to 1,000 characters.
        """
        storable("worker's name", worker)
        now = self._database.now()
        # A power cut undoes a claim, and then the job is simply offered again: no need to wait for the disk.
        return await self._database.write(partial(take, worker=worker, now=now, until=now + self._lease), durable=False)

    async def heartbeat(self, lease: Lease) -> Hold:
        """The worker is alive: its lease begins anew.

        Raises:
            LeaseLost: it should drop the job.
        """
        until = self._database.now() + self._lease
        hold = await self._database.write(partial(extend, lease=lease, until=until), durable=False)
        if hold is None:
            raise self._lost(lease)
        return hold

    async def finish(self, lease: Lease, outcome: Outcome) -> None:
        """The job is over. It is on disk when this returns.

        Raises:
            LeaseLost: the job was given to somebody else or ended otherwise, and stays as it is.
        """
        now = self._database.now()
        if not await self._database.write(partial(finish, lease=lease, outcome=outcome, now=now)):
            raise self._lost(lease)

    async def release(self, lease: Lease) -> TakenBack:
        """The worker gives the job back: it is offered again at its place, and the attempt does not count.

        Raises:
            LeaseLost: there was nothing to give back.
        """
        now = self._database.now()
        taken = await self._database.write(partial(take_back, which=held(lease), now=now))
        if not taken:
            raise self._lost(lease)
        return taken[0]

    def _lost(self, lease: Lease) -> LeaseLost:
        return LeaseLost(lease.job_id, lease.worker, self._lease)

    # When workers die

    async def worker_died(self, worker: str, cause: str) -> Sequence[TakenBack]:
        """Offer the jobs of a worker again, each at its place. The attempt counts; after the third the job has failed.

        Args:
            cause: what is known of it, for people.
        """
        now = self._database.now()
        return await self._database.write(partial(take_back, which=job.c.worker == worker, now=now, cause=cause))

    async def expire(self) -> Sequence[TakenBack]:
        """Treat workers as dead that were not heard of for the length of a lease.

        A server that was asleep itself should send the heartbeats of its workers before it calls this.
        """
        now = self._database.now()
        cause = f"nothing was heard of it for {self._lease.total_seconds():g} s"
        return await self._database.write(partial(take_back, which=job.c.expires < now, now=now, cause=cause))

    async def recover(self, workers: str = "") -> Sequence[TakenBack]:
        """Offer jobs again because the server died, not their workers: attempts do not count.

        For a server that starts, before it has workers of its own.

        Args:
            workers: how the names of the dead workers begin; left out, every running job is offered again, which is
                right only where nobody else works on this database.
        """
        now = self._database.now()
        return await self._database.write(partial(take_back, which=workers_called(workers), now=now))

    # Cancelling

    async def cancel(self, job_ids: Iterable[str], owner: str | None = None) -> Mapping[str, Cancelled]:
        """Stop jobs: those that wait at once, those that run when their workers next send a heartbeat."""
        now = self._database.now()
        return await self._database.write(partial(cancel, job_ids=tuple(job_ids), owner=owner, now=now))

    async def cancel_waiting(self, owner: str | None = None) -> int:
        """Cancel all jobs that wait now. Returns how many they were."""
        now, upto = self._database.now(), await self._database.read(newest)
        total = 0
        while count := await self._database.write(partial(cancel_waiting, owner=owner, upto=upto, now=now)):
            total += count
        return total

    # The whole queue

    async def mode(self) -> Mode:
        def look(connection: Connection) -> Mode:
            return connection.execute(select(queue.c.mode)).scalar_one()

        return await self._database.read(look)

    async def pause(self) -> None:
        """Offer no jobs until `resume`, also after a restart. Those that run go on."""
        await self._set_mode("paused")

    async def drain(self) -> None:
        """Take no new jobs until `resume`, also after a restart. Those that wait are offered as before."""
        await self._set_mode("draining")

    async def resume(self) -> None:
        """Take and offer jobs."""
        await self._set_mode("open")

    async def _set_mode(self, mode: Mode) -> None:
        def change(connection: Connection) -> None:
            connection.execute(update(queue).values(mode=mode))

        await self._database.write(change)
