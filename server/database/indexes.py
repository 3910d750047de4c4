"""The indexes of the tables, as the last migration leaves them: for comparing, and for the next migration.

A server does not import this: describing an index loads what SQLAlchemy knows of both databases.
"""

from sqlalchemy import Index

from server.database.tables import QUEUED, RUNNING, event, job, metadata, webhook

__all__ = ["metadata"]

Index("job_queue", job.c.priority, job.c.number, job.c.seq, sqlite_where=QUEUED, postgresql_where=QUEUED)
Index("job_lease", job.c.expires, sqlite_where=RUNNING, postgresql_where=RUNNING)
Index("job_created", job.c.state, job.c.created, job.c.seq)
Index("job_owner", job.c.owner, job.c.state, job.c.created, job.c.seq)
Index("job_duration", job.c.state, job.c.duration, job.c.seq)
_BY_EDITOR = job.c.workflow_id.is_not(None)
Index(
    "job_workflow_id",
    job.c.workflow_id,
    job.c.state,
    job.c.created,
    job.c.seq,
    sqlite_where=_BY_EDITOR,
    postgresql_where=_BY_EDITOR,
)

# A document goes when nobody needs it any more.
Index("job_workflow", job.c.workflow)
_EXTRA = job.c.extra.is_not(None)
Index("job_extra", job.c.extra, sqlite_where=_EXTRA, postgresql_where=_EXTRA)
Index("event_job", event.c.job, event.c.seq)
_FOR_CLIENT = event.c.client_id.is_not(None)
Index("event_client", event.c.client_id, event.c.seq, sqlite_where=_FOR_CLIENT, postgresql_where=_FOR_CLIENT)
_SLOTTED = event.c.slot.is_not(None)
Index("event_slot", event.c.job, event.c.slot, unique=True, sqlite_where=_SLOTTED, postgresql_where=_SLOTTED)
_DUE = webhook.c.due.is_not(None)
Index("webhook_due", webhook.c.due, sqlite_where=_DUE, postgresql_where=_DUE)
