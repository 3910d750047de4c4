"""The tables, as the last migration leaves them; their indexes are in `indexes.py`, which no query needs."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    literal_column,
)
from sqlalchemy.types import TypeDecorator

from server.database.documents import Document

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)


def milliseconds(moment: datetime) -> int:
    """Since 1970, rounded down."""
    return (moment - EPOCH) // MILLISECOND


class Moment(TypeDecorator[datetime]):
    """A time in UTC, stored as milliseconds since 1970."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else milliseconds(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else EPOCH + value * MILLISECOND


class Json(TypeDecorator[Any]):
    """JSON as text, so that both databases store the same and neither reorders it."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else Document.of(value).text

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


# SQLite numbers rows by itself only in a column of type INTEGER, which holds 64 bits too.
Serial = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData()

document = Table(
    "document",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("text", Text, nullable=False),
    sqlite_autoincrement=True,
)

job = Table(
    "job",
    metadata,
    Column("seq", Serial, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("owner", Text, nullable=False),
    Column("client_id", Text),
    Column("priority", SmallInteger, nullable=False),  # the place in PRIORITIES
    Column("number", Double, nullable=False),
    Column("state", Text, nullable=False),
    Column("created", Moment, nullable=False),
    Column("started", Moment),
    Column("finished", Moment),
    Column("duration", BigInteger, nullable=False),  # milliseconds of the last attempt; 0 until the job is over
    Column("attempts", SmallInteger, nullable=False),
    Column("claims", Integer, nullable=False),
    Column("worker", Text),
    Column("expires", Moment),
    Column("cancelling", Boolean, nullable=False),
    Column("workflow_id", Text),
    Column("label", Text, nullable=False),
    Column("searched", Text, nullable=False),  # what a search looks through, case folded
    Column("ran", Integer, nullable=False),
    Column("reused", Integer, nullable=False),
    Column("workflow", Serial, ForeignKey("document.id"), nullable=False),
    Column("extra", Serial, ForeignKey("document.id")),
    Column("error", Json),
    Column("summary", Json),
    Column("overrides", Json),
    Column("targets", Json),
    Column("secret", Json),
    Column("losses", Json),
    Column("timings", Json),
    Column("record", Text),
    Column("outputs", Text),
    sqlite_autoincrement=True,
)

# Conditions of partial indexes: only a statement that says the same in so many words can use the index, and a
# parameter is no word.
QUEUED = job.c.state == literal_column("'queued'")
RUNNING = job.c.state == literal_column("'running'")

queue = Table(
    "queue",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="queue_is_one"), primary_key=True, autoincrement=False),
    Column("mode", Text, nullable=False),
    Column("numbered", BigInteger, nullable=False),  # how many jobs were given a number
)

tally = Table(
    "tally",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("state", Text, primary_key=True),
    Column("jobs", BigInteger, nullable=False),
)

event_log = Table(
    "event_log",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="event_log_is_one"), primary_key=True, autoincrement=False),
    Column("last", BigInteger, nullable=False),
    Column("pruned", BigInteger, nullable=False),  # the last event that was let go for its age
)

event = Table(
    "event",
    metadata,
    Column("seq", Serial, primary_key=True, autoincrement=False),
    Column("job", Serial, ForeignKey("job.seq", ondelete="CASCADE"), nullable=False),
    Column("client_id", Text),
    Column("kind", Text, nullable=False),
    Column("slot", Text),
    Column("time", Moment, nullable=False),
    Column("data", Text, nullable=False),
)

webhook = Table(
    "webhook",
    metadata,
    Column("job", Serial, ForeignKey("job.seq", ondelete="CASCADE"), primary_key=True),
    Column("url", Text, nullable=False),
    Column("secret", Text),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due", Moment),
    Column("failure", Text),
    Column("endings", Text),  # the states that are told, with commas between; all if there are none
)

api_key = Table(
    "api_key",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("scopes", Json, nullable=False),
    Column("created", Moment, nullable=False),
    Column("expires", Moment),
    Column("used", Moment),
    Column("revoked", Moment),
)
