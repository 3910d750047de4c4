"""Jobs, their documents and events, webhooks, and API keys."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

Serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "document",
        sa.Column("id", Serial, primary_key=True),
        sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("text", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "job",
        sa.Column("seq", Serial, primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("client_id", sa.Text),
        sa.Column("priority", sa.SmallInteger, nullable=False),
        sa.Column("number", sa.Double, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("started", sa.BigInteger),
        sa.Column("finished", sa.BigInteger),
        sa.Column("duration", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.SmallInteger, nullable=False),
        sa.Column("claims", sa.Integer, nullable=False),
        sa.Column("worker", sa.Text),
        sa.Column("expires", sa.BigInteger),
        sa.Column("cancelling", sa.Boolean, nullable=False),
        sa.Column("workflow_id", sa.Text),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("searched", sa.Text, nullable=False),
        sa.Column("ran", sa.Integer, nullable=False),
        sa.Column("reused", sa.Integer, nullable=False),
        sa.Column("workflow", Serial, sa.ForeignKey("document.id"), nullable=False),
        sa.Column("extra", Serial, sa.ForeignKey("document.id")),
        *(sa.Column(name, sa.Text) for name in ("error", "summary", "overrides", "targets", "secret", "losses")),
        *(sa.Column(name, sa.Text) for name in ("timings", "record", "outputs")),
        sqlite_autoincrement=True,
    )
    _index("job_queue", "job", "priority", "number", "seq", where="state = 'queued'")
    _index("job_lease", "job", "expires", where="state = 'running'")
    _index("job_created", "job", "state", "created", "seq")
    _index("job_owner", "job", "owner", "state", "created", "seq")
    _index("job_duration", "job", "state", "duration", "seq")
    _index("job_workflow_id", "job", "workflow_id", "state", "created", "seq", where="workflow_id IS NOT NULL")
    _index("job_workflow", "job", "workflow")
    _index("job_extra", "job", "extra", where="extra IS NOT NULL")

    queue = op.create_table(
        "queue",
        sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1", name="queue_is_one"), primary_key=True),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("numbered", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(queue, [{"id": 1, "mode": "open", "numbered": 0}])
    op.create_table(
        "tally",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, primary_key=True),
        sa.Column("jobs", sa.BigInteger, nullable=False),
    )

    event_log = op.create_table(
        "event_log",
        sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1", name="event_log_is_one"), primary_key=True),
        sa.Column("last", sa.BigInteger, nullable=False),
        sa.Column("pruned", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(event_log, [{"id": 1, "last": 0, "pruned": 0}])
    op.create_table(
        "event",
        sa.Column("seq", Serial, primary_key=True, autoincrement=False),
        sa.Column("job", Serial, sa.ForeignKey("job.seq", ondelete="CASCADE"), nullable=False),
        sa.Column("client_id", sa.Text),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("slot", sa.Text),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
    )
    _index("event_job", "event", "job", "seq")
    _index("event_client", "event", "client_id", "seq", where="client_id IS NOT NULL")
    _index("event_slot", "event", "job", "slot", where="slot IS NOT NULL", unique=True)

    op.create_table(
        "webhook",
        sa.Column("job", Serial, sa.ForeignKey("job.seq", ondelete="CASCADE"), primary_key=True),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("secret", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due", sa.BigInteger),
        sa.Column("failure", sa.Text),
    )
    _index("webhook_due", "webhook", "due", where="due IS NOT NULL")
    op.create_table(
        "api_key",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.BigInteger),
        sa.Column("used", sa.BigInteger),
        sa.Column("revoked", sa.BigInteger),
    )
    if op.get_context().dialect.name == "sqlite":
        _describe_to_sqlite()


# PostgreSQL finds out by itself how many rows an index narrows a query down to. SQLite guesses, and would sort all
# jobs that wait at every claim; so it is told how a large database looks: rows, then rows with the same first column,
# with the same first two, and so on. See "Query Planner Stability" in its documentation.
LOOKS = {
    "sqlite_autoindex_job_1": "1000000 1",
    "job_queue": "10000 3000 2 1",
    "job_lease": "10 2",
    "job_created": "1000000 200000 2 1",
    "job_owner": "1000000 100000 20000 2 1",
    "job_duration": "1000000 200000 100 1",
    "job_workflow_id": "1000000 1000 500 2 1",
    "job_workflow": "1000000 2",
    "job_extra": "1000000 2",
}


def _describe_to_sqlite() -> None:
    op.execute("ANALYZE")
    described = sa.table("sqlite_stat1", sa.column("tbl"), sa.column("idx"), sa.column("stat"))
    op.bulk_insert(described, [{"tbl": "job", "idx": index, "stat": look} for index, look in LOOKS.items()])
    op.execute("ANALYZE sqlite_master")  # which only reads what was just written


def _index(name: str, table: str, *columns: str, where: str | None = None, unique: bool = False) -> None:
    condition = None if where is None else sa.text(where)
    op.create_index(name, table, [*columns], unique=unique, sqlite_where=condition, postgresql_where=condition)
