"""What happened to jobs, in order: a client that was away reads what it missed.

Every event has a number, and numbers grow in the order in which events become visible, whoever writes them. An event
with a slot replaces the job's last one in the same slot: so progress takes one row per node, however often it ticks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from hashlib import blake2b

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.engine import Connection

from server.database.chunks import chunks
from server.database.database import Database
from server.database.documents import Document
from server.database.errors import WrongRequest
from server.database.jobs import is_job_id
from server.database.owners import belongs
from server.database.rows import Query
from server.database.tables import event, event_log, job
from server.database.texts import storable

MOST_PER_PAGE = 1000
DELETED_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class NewEvent:
    """Something that happened to a job.

    Args:
        kind: a name of at most 100 characters.
        data: JSON.
        slot: what it is the latest of, at most 1,000 characters, for example `progress` and a node's id.
    """

    job_id: str
    kind: str
    data: Document
    slot: str | None = None

    def __post_init__(self) -> None:
        storable("kind of the event", self.kind, 100)
        storable("slot of the event", self.slot or "")


def slot_of(mark: str) -> str:
    """A slot for a mark of any length and letters: clients choose the ids of nodes."""
    try:
        return storable("slot of the event", mark)
    except WrongRequest:
        return blake2b(mark.encode(errors="surrogatepass"), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event with its number."""

    number: int
    job_id: str
    client_id: str | None
    kind: str
    data: Document
    time: datetime


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events in order. `last` is where to go on; `more` says that there is something there already.

    `complete`: nothing that was asked for had been deleted for its age.
    """

    events: tuple[LoggedEvent, ...]
    last: int
    more: bool
    complete: bool


# A slot's last event goes before the next one comes.
CLEAR_SLOT = delete(event).where(event.c.job == bindparam("of"), event.c.slot == bindparam("latest"))


class EventLog:
    """The events of a database. All methods raise DatabaseUnavailable when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, events: Sequence[NewEvent]) -> int:
        """Write events down, together and in this order. Events of jobs that do not exist are dropped.

        A power cut may lose the last ones.

        Returns:
            The number of the first; the others follow without a gap.
        """
        now = self._database.now()
        return await self._database.write(partial(_append, events=events, now=now), durable=False)

    async def read(
        self,
        *,
        job_id: str | None = None,
        client_id: str | None = None,
        owner: str | None = None,
        after: int = 0,
        limit: int = MOST_PER_PAGE,
    ) -> EventPage:
        """Read on behind an event, of one job or for one client or both.

        Args:
            owner: only events of this owner's jobs.
            after: the number of the last event that is known; 0 or more.
            limit: 1 to 1,000.

        Raises:
            WrongRequest: neither a job nor a client is given, or a number is outside of its range.
        """
        if job_id is None and client_id is None:
            raise WrongRequest("events are read of a job or for a client")
        if not 0 <= after < 2**63:
            raise WrongRequest(f"events have numbers from 1 on, and {after} is not before any of them")
        if not 1 <= limit <= MOST_PER_PAGE:
            raise WrongRequest(f"1 to {MOST_PER_PAGE} events can be read at once, not {limit}")
        query = select(event, job.c.id).join(job, event.c.job == job.c.seq).where(belongs(owner))
        if job_id is not None:
            if not is_job_id(job_id):
                raise WrongRequest(f"a job's id is a UUID in lower case with hyphens, not {job_id!a:.80}")
            query = query.where(event.c.job == select(job.c.seq).where(job.c.id == job_id).scalar_subquery())
        if client_id is not None:
            query = query.where(event.c.client_id == storable("client's id", client_id))
        return await self._database.read(partial(_read, query=query, after=after, limit=limit))

    async def last(self) -> int:
        """The number of the last event of all; 0 before the first."""

        def look(connection: Connection) -> int:
            return connection.execute(select(event_log.c.last)).scalar_one()

        return await self._database.read(look)

    async def prune(self, older_than: timedelta | None = None, most: int | None = None) -> int:
        """Delete events older than this, and then the oldest until at most so many are left. Returns how many went."""
        total = 0
        if older_than is not None:
            before = self._database.now() - older_than
            while count := await self._database.write(partial(_prune_before, before=before), durable=False):
                total += count
        if most is not None:
            while count := await self._database.write(partial(_prune_beyond, most=most), durable=False):
                total += count
        return total


def _append(connection: Connection, events: Sequence[NewEvent], now: datetime) -> int:
    # From here on others wait until this is committed: so numbers become visible in order.
    counted = update(event_log).values(last=event_log.c.last + len(events)).returning(event_log.c.last)
    first = connection.execute(counted).scalar_one() - len(events) + 1
    jobs: dict[str, tuple[int, str | None]] = {}
    for some in chunks(sorted(filter(is_job_id, {new.job_id for new in events}))):
        query = select(job.c.id, job.c.seq, job.c.client_id).where(job.c.id.in_(some))
        jobs.update((job_id, (seq, client_id)) for job_id, seq, client_id in connection.execute(query))
    rows: dict[object, dict[str, object]] = {}
    for number, new in enumerate(events, first):
        if new.job_id not in jobs:
            continue
        seq, client_id = jobs[new.job_id]
        place = number if new.slot is None else (seq, new.slot)
        rows.pop(place, None)
        rows[place] = {
            "seq": number,
            "job": seq,
            "client_id": client_id,
            "kind": new.kind,
            "slot": new.slot,
            "time": now,
            "data": new.data.text,
        }
    slots = [{"of": row["job"], "latest": row["slot"]} for row in rows.values() if row["slot"] is not None]
    if slots:
        connection.execute(CLEAR_SLOT, slots)
    for some in chunks([*rows.values()]):
        connection.execute(insert(event), some)
    return first


def _read(connection: Connection, query: Query, after: int, limit: int) -> EventPage:
    last, pruned = connection.execute(select(event_log.c.last, event_log.c.pruned)).one()
    # Whatever is committed after that belongs to the next reading.
    found = query.where(event.c.seq > after, event.c.seq <= last).order_by(event.c.seq).limit(limit + 1)
    rows = connection.execute(found).mappings().all()
    events = tuple(
        LoggedEvent(row["seq"], row["id"], row["client_id"], row["kind"], Document(row["data"]), row["time"])
        for row in rows[:limit]
    )
    more = len(rows) > limit
    return EventPage(events, events[-1].number if more else max(last, after), more, after >= pruned)


def _prune_before(connection: Connection, before: datetime) -> int:
    """Delete some of the events that are older. Returns how many; 0: no more."""
    oldest = select(event.c.seq, event.c.time).order_by(event.c.seq).limit(DELETED_AT_ONCE)
    found = connection.execute(oldest)
    return _prune(connection, [number for number, time in found if time < before])


def _prune_beyond(connection: Connection, most: int) -> int:
    """Delete some of the events by which there are too many. Returns how many; 0: there are not."""
    newest = select(event.c.seq).order_by(event.c.seq.desc()).limit(1).offset(most)
    last = connection.execute(newest).scalar()
    if last is None:
        return 0
    oldest = select(event.c.seq).where(event.c.seq <= last).order_by(event.c.seq).limit(DELETED_AT_ONCE)
    return _prune(connection, connection.scalars(oldest).all())


def _prune(connection: Connection, numbers: Sequence[int]) -> int:
    if not numbers:
        return 0
    # Readers are told that something is gone before it is; a writer of events waits here, so nobody overtakes.
    gone = update(event_log).where(event_log.c.pruned < max(numbers)).values(pruned=max(numbers))
    connection.execute(gone)
    deleted = connection.execute(delete(event).where(event.c.seq.in_(numbers)))
    return deleted.rowcount
