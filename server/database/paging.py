"""Pages of jobs: which, in which order, and from where on."""

import base64
import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Column, ColumnElement, literal, select, tuple_, union_all
from sqlalchemy.engine import Connection

from server.database.errors import WrongRequest
from server.database.jobs import STATES, JobSummary, State
from server.database.owners import belongs
from server.database.rows import SUMMARY, Query, Row, summary_of
from server.database.tables import EPOCH, MILLISECOND, QUEUED, job, milliseconds
from server.database.texts import storable

Sort = Literal["created", "duration", "urgency"]
"""`created`: when they were submitted. `duration`: how long they took, 0 while they have not ended. `urgency`: those
that wait, in the order in which they will be claimed."""

SORTS: dict[Sort, tuple[Column[Any], ...]] = {
    "created": (job.c.created, job.c.seq),
    "duration": (job.c.duration, job.c.seq),
    "urgency": (job.c.priority, job.c.number, job.c.seq),
}
MOST_PER_PAGE = 1000
MOST_OFFSET = 10_000_000
LOOKED_THROUGH = 10_000
"""Jobs of each state that one page of a search looks through at most."""
MOST_WORDS = 10

Key = tuple[Any, ...]
"""Where in a list a job stands: its values in the columns that the list is sorted by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs: those that fulfil everything given.

    Args:
        states: one of these; all if left out.
        created_from: submitted then or later, and `created_before`: earlier than that.
        search: each of these words, up to ten, occurs somewhere in the label or the id, in upper or lower case.

    Raises:
        WrongRequest: a text cannot be searched for, or a time has no time zone.
    """

    owner: str | None = None
    states: Collection[State] | None = None
    workflow_id: str | None = None
    created_from: datetime | None = None
    created_before: datetime | None = None
    search: str | None = None

    def __post_init__(self) -> None:
        storable("owner's name", self.owner or "")
        storable("workflow's id", self.workflow_id or "")
        storable("search", self.search or "")
        for moment in (self.created_from, self.created_before):
            if moment is not None and moment.tzinfo is None:
                raise WrongRequest(f"{moment} is a time without a time zone")
        if len(self.words) > MOST_WORDS:
            raise WrongRequest(f"a search may have {MOST_WORDS} words, not {len(self.words)}")

    @property
    def words(self) -> Sequence[str]:
        return (self.search or "").casefold().split()

    @property
    def is_tallied(self) -> bool:
        """Whether the tallies know how many these are."""
        given = (self.workflow_id, self.created_from, self.created_before)
        return not self.words and all(part is None for part in given)


@dataclass(frozen=True, slots=True)
class Page:
    """Some jobs, and where the next ones are, if there are more.

    A page of a search may have few jobs or none though there are more: it looks through 10,000 jobs of each state.
    """

    jobs: tuple[JobSummary, ...]
    next: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a page is to hold. `after` is the `next` of the page before, of the same filter and order.

    Args:
        limit: jobs on the page, 1 to 1,000.
        offset: jobs to be left out first, 0 to 10,000,000; not in a search.

    Raises:
        WrongRequest: a number is outside of its range, or `after` belongs to another list.
    """

    which: JobFilter
    sort: Sort
    descending: bool
    limit: int
    offset: int
    after: str | None

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= MOST_PER_PAGE:
            raise WrongRequest(f"a page has 1 to {MOST_PER_PAGE} jobs, not {self.limit}")
        if not 0 <= self.offset <= MOST_OFFSET:
            raise WrongRequest(f"0 to {MOST_OFFSET} jobs can be left out, not {self.offset}")
        if self.offset and self.which.words:
            raise WrongRequest("a search goes on from the page before, not from an offset")
        self.begin()

    @property
    def columns(self) -> tuple[Column[Any], ...]:
        return SORTS[self.sort]

    @property
    def states(self) -> Sequence[State]:
        """The states that can occur on the page."""
        possible: tuple[State, ...] = ("queued",) if self.sort == "urgency" else STATES
        return [state for state in possible if self.which.states is None or state in self.which.states]

    def sorted(self, query: Query, columns: Sequence[ColumnElement[Any]]) -> Query:
        return query.order_by(*(column.desc() if self.descending else column.asc() for column in columns))

    def beyond(self, key: Key) -> ColumnElement[bool]:
        """Jobs that come after this place."""
        here, there = tuple_(*self.columns), self._constant(key)
        return here < there if self.descending else here > there

    def up_to(self, key: Key) -> ColumnElement[bool]:
        """Jobs that come before this place or stand there."""
        here, there = tuple_(*self.columns), self._constant(key)
        return here >= there if self.descending else here <= there

    def _constant(self, key: Key) -> ColumnElement[Any]:
        return tuple_(*(literal(value, column.type) for column, value in zip(self.columns, key, strict=True)))

    def nearest(self, keys: Sequence[Key]) -> Key | None:
        """The one that comes first."""
        return (max if self.descending else min)(keys, default=None)

    def begin(self) -> Key | None:
        """The place that the page follows."""
        if self.after is None:
            return None
        try:
            sort, descending, *values = json.loads(base64.urlsafe_b64decode(self.after.encode()))
            if (sort, descending) == (self.sort, self.descending) and len(values) == len(self.columns):
                return tuple(_read(column, value) for column, value in zip(self.columns, values, strict=True))
        except (ValueError, TypeError, OverflowError, RecursionError):
            pass
        raise WrongRequest(f"no page of this list ended at {self.after!a:.80}")

    def place(self, key: Key) -> str:
        """A place as a text that `after` can be."""
        values = [milliseconds(value) if isinstance(value, datetime) else value for value in key]
        return base64.urlsafe_b64encode(json.dumps([self.sort, self.descending, *values]).encode()).decode()


def _read(column: Column[Any], value: Any) -> Any:
    """A value out of a text that anybody may have written."""
    if type(value) is not (float if column is job.c.number else int) or abs(value) >= 2**63 or math.isnan(value):
        raise ValueError
    return EPOCH + value * MILLISECOND if column is job.c.created else value


def conditions(which: JobFilter) -> Sequence[ColumnElement[bool]]:
    """The filter in SQL, but for the states."""
    found = [belongs(which.owner)]
    if which.workflow_id is not None:
        found.append(job.c.workflow_id == which.workflow_id)
    if which.created_from is not None:
        found.append(job.c.created >= which.created_from)
    if which.created_before is not None:
        found.append(job.c.created < which.created_before)
    found.extend(job.c.searched.contains(word, autoescape=True) for word in which.words)
    return found


def page(connection: Connection, wanted: Wanted) -> Page:
    """Read a page."""
    if not wanted.states:
        return Page((), None)
    start = wanted.begin()
    bounds = [] if start is None else [wanted.beyond(start)]
    frontier = _frontier(connection, wanted, bounds) if wanted.which.words else None
    if frontier is not None:
        bounds.append(wanted.up_to(frontier))
    rows = _rows(connection, wanted, [*conditions(wanted.which), *bounds])
    shown = rows[: wanted.limit]
    following = frontier
    if len(rows) > wanted.limit:
        following = tuple(shown[-1][column.name] for column in wanted.columns)
    return Page(tuple(map(summary_of, shown)), None if following is None else wanted.place(following))


def _rows(connection: Connection, wanted: Wanted, conditions: Sequence[ColumnElement[bool]]) -> Sequence[Row]:
    """The rows of a page, and one more if there is one."""
    count = wanted.offset + wanted.limit + 1

    def of(state: State) -> Query:
        found = select(*wanted.columns).where(QUEUED if state == "queued" else job.c.state == state, *conditions)
        return wanted.sorted(found, wanted.columns).limit(count)

    places = _together(wanted, of)
    chosen = wanted.sorted(select(places), tuple(places.c)).limit(wanted.limit + 1).offset(wanted.offset).subquery()
    query = select(*SUMMARY).join(chosen, job.c.seq == chosen.c.seq)
    return connection.execute(wanted.sorted(query, wanted.columns)).mappings().all()


def _frontier(connection: Connection, wanted: Wanted, bounds: Sequence[ColumnElement[bool]]) -> Key | None:
    """How far a search looks: so far that it has not looked through too many jobs of any state. None: to the end."""

    def of(state: State) -> Query:
        found = select(*wanted.columns).where(job.c.state == state, belongs(wanted.which.owner), *bounds)
        return wanted.sorted(found, wanted.columns).limit(1).offset(LOOKED_THROUGH - 1)

    ends = connection.execute(select(_together(wanted, of)))
    return wanted.nearest([tuple(end) for end in ends])


def _together(wanted: Wanted, of: Callable[[State], Query]) -> Any:
    """What a query finds for each state. Asked state by state it follows an index and stops where it may."""
    parts = [select(of(state).subquery()) for state in wanted.states]
    return union_all(*parts).subquery()
