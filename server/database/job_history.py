"""What became of jobs: looking at one, at pages of many, counting them, and letting old ones go.

Lists are paged by the database, each page from the place where the last one ended, so that all cost the same.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.engine import Connection

from server.database.chunks import chunks
from server.database.database import Database
from server.database.errors import JobNotFound
from server.database.forgetting import DELETED_AT_ONCE, ended_before, forget_beyond, forget_named, forget_oldest
from server.database.jobs import ENDINGS, PRIORITIES, STATES, Ending, Job, Priority, State, is_job_id
from server.database.owners import belongs
from server.database.paging import JobFilter, Page, Sort, Wanted, conditions, page
from server.database.rows import WHOLE, job_of
from server.database.tables import QUEUED, RUNNING, job
from server.database.tallies import Counts, counts

EVERYTHING = JobFilter()
_UNFINISHED: Mapping[State, ColumnElement[bool]] = {"queued": QUEUED, "running": RUNNING}


class JobHistory:
    """The jobs of a database, those that wait and run included.

    Wherever an `owner` can be given, other owners' jobs are as if they were not there.
    All methods raise DatabaseUnavailable when the database does not answer.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    # Looking

    async def job(self, job_id: str, owner: str | None = None) -> Job:
        """One job.

        Raises:
            JobNotFound
        """
        found = await self.jobs([job_id], owner)
        if not found:
            raise JobNotFound(job_id)
        return found[0]

    async def jobs(self, job_ids: Iterable[str], owner: str | None = None) -> Sequence[Job]:
        """These jobs in this order, without those that do not exist. Each may be large: ask for tens, not thousands."""
        asked = [job_id for job_id in dict.fromkeys(job_ids) if is_job_id(job_id)]

        def look(connection: Connection) -> Sequence[Job]:
            found: dict[str, Job] = {}
            for some in chunks(asked):
                rows = connection.execute(WHOLE.where(job.c.id.in_(some), belongs(owner)))
                found.update((row["id"], job_of(row)) for row in rows.mappings())
            return [found[job_id] for job_id in asked if job_id in found]

        return await self._database.read(look)

    async def page(
        self,
        which: JobFilter = EVERYTHING,
        *,
        sort: Sort = "created",
        descending: bool = True,
        limit: int = 100,
        offset: int = 0,
        after: str | None = None,
    ) -> Page:
        """One page of a list.

        Args:
            limit: jobs on the page, 1 to 1,000.
            offset: jobs to be left out first, 0 to 10,000,000; not in a search. What is left out costs time too.
            after: the `next` of the page before, of the same filter and order.

        Raises:
            WrongRequest: a number is outside of its range, or `after` belongs to another list.
        """
        wanted = Wanted(which=which, sort=sort, descending=descending, limit=limit, offset=offset, after=after)
        return await self._database.read(partial(page, wanted=wanted))

    async def counts(self, owner: str | None = None) -> Counts:
        """How many jobs there are in each state. Costs the same for any number of jobs."""
        return await self._database.read(partial(counts, owner=owner))

    async def waiting(self) -> Mapping[tuple[Priority, State], int]:
        """How many jobs wait and run, by class and state. Looks at each of them, some ten milliseconds for 100,000."""

        def look(connection: Connection) -> Mapping[tuple[Priority, State], int]:
            found: dict[tuple[Priority, State], int] = {}
            for state, condition in _UNFINISHED.items():
                query = select(job.c.priority, func.count()).where(condition).group_by(job.c.priority)
                for place, count in connection.execute(query):
                    found[PRIORITIES[place], state] = count
            return found

        return await self._database.read(look)

    async def count(self, which: JobFilter = EVERYTHING) -> int:
        """How many jobs there are of this kind. A search looks through all of them, which may take seconds."""
        states = STATES if which.states is None else which.states
        if which.is_tallied:
            found = await self.counts(which.owner)
            return sum(getattr(found, state) for state in set(states))

        def look(connection: Connection) -> int:
            query = select(func.count()).select_from(job).where(job.c.state.in_(states), *conditions(which))
            return connection.execute(query).scalar_one()

        return await self._database.read(look)

    # Letting go

    async def delete(self, job_ids: Iterable[str], owner: str | None = None) -> int:
        """Delete those of these jobs that are over. Returns how many."""
        total = 0
        for some in chunks([job_id for job_id in dict.fromkeys(job_ids) if is_job_id(job_id)], DELETED_AT_ONCE):
            total += await self._database.write(partial(forget_named, job_ids=some, which=[belongs(owner)]))
        return total

    async def clear(self, owner: str | None = None, states: Collection[Ending] = ENDINGS) -> int:
        """Delete all jobs that ended like this. Returns how many."""
        chosen: Sequence[Ending] = [state for state in ENDINGS if state in states]
        return await self._all_of(partial(forget_oldest, states=chosen, which=[belongs(owner)])) if chosen else 0

    async def prune(self, older_than: timedelta | None = None, most: int | None = None) -> int:
        """Delete jobs that have been over for longer than this, and then the oldest of those that are over until
        at most so many are left. Returns how many went.
        """
        total = 0
        if older_than is not None:
            before = ended_before(self._database.now() - older_than)
            total += await self._all_of(partial(forget_oldest, states=ENDINGS, which=before), durable=False)
        if most is not None:
            total += await self._all_of(partial(forget_beyond, most=most), durable=False)
        return total

    async def _all_of(self, some: Callable[[Connection], int], durable: bool = True) -> int:
        """Repeat what deletes a few jobs at a time, so that others may write in between."""
        total = 0
        while count := await self._database.write(some, durable):
            total += count
        return total
