"""Telling others that a job is over: who is to be told, and how often that was tried.

A call is handed out to one server at a time. If that server dies over it, it is handed out again, so a receiver may
hear twice of a job, but always hears of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Literal

from sqlalchemy import select, update
from sqlalchemy.engine import Connection

from server.database.database import Database
from server.database.jobs import is_job_id
from server.database.owners import belongs
from server.database.tables import job, webhook
from server.database.texts import made_storable

WebhookState = Literal["waiting", "delivered", "abandoned"]
AT_ONCE = 20
PATIENCE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class WebhookCall:
    """Somebody to be told now. `attempt` is 1 the first time."""

    job_id: str
    url: str
    secret: str | None
    attempt: int


@dataclass(frozen=True, slots=True)
class WebhookStatus:
    """How telling somebody goes. `due`: when it is tried next; `failure`: what went wrong the last time."""

    url: str
    state: WebhookState
    attempts: int
    due: datetime | None
    failure: str | None


class Webhooks:
    """The webhooks of a database. They become due when their jobs end.

    All methods raise DatabaseUnavailable when the database does not answer.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, at_once: int = AT_ONCE, patience: timedelta = PATIENCE) -> Sequence[WebhookCall]:
        """Whom to tell now, those that waited longest first.

        Args:
            patience: when a call is handed out again of which neither `delivered` nor `failed` is heard.
        """
        now = self._database.now()
        if not await self._database.read(partial(_is_any_due, now=now)):
            return []
        return await self._database.write(partial(_take, at_once=at_once, now=now, again=now + patience))

    async def delivered(self, call: WebhookCall) -> None:
        """The receiver has answered that it knows."""
        await self._set(call, "delivered", None, None)

    async def failed(self, call: WebhookCall, why: str, again_in: timedelta | None) -> None:
        """The receiver could not be told; try again after a while, or give it up (None)."""
        due = None if again_in is None else self._database.now() + again_in
        await self._set(call, "abandoned" if due is None else "waiting", due, why)

    async def status(self, job_id: str, owner: str | None = None) -> WebhookStatus | None:
        """The webhook of a job. None: it has none, or there is no such job."""
        if not is_job_id(job_id):
            return None
        columns = (webhook.c.url, webhook.c.state, webhook.c.attempts, webhook.c.due, webhook.c.failure)
        query = select(*columns).join(job, webhook.c.job == job.c.seq).where(job.c.id == job_id, belongs(owner))

        def look(connection: Connection) -> WebhookStatus | None:
            row = connection.execute(query).first()
            return None if row is None else WebhookStatus(*row)

        return await self._database.read(look)

    async def _set(self, call: WebhookCall, state: WebhookState, due: datetime | None, failure: str | None) -> None:
        which = webhook.c.job == select(job.c.seq).where(job.c.id == call.job_id).scalar_subquery()
        values = {
            "state": state,
            "due": due,
            "failure": failure and made_storable(failure),
        }

        def change(connection: Connection) -> None:
            # A call of an earlier attempt, of which nothing was heard for long, has nothing to say any more.
            current = (webhook.c.attempts == call.attempt, webhook.c.state == "waiting")
            connection.execute(update(webhook).where(which, *current).values(**values))

        await self._database.write(change)


def _is_any_due(connection: Connection, now: datetime) -> bool:
    return connection.execute(select(webhook.c.job).where(webhook.c.due <= now).limit(1)).first() is not None


def _take(connection: Connection, at_once: int, now: datetime, again: datetime) -> Sequence[WebhookCall]:
    query = select(webhook.c.job, job.c.id, webhook.c.url, webhook.c.secret, webhook.c.attempts)
    due = query.join(job, webhook.c.job == job.c.seq).where(webhook.c.due <= now).order_by(webhook.c.due)
    rows = connection.execute(due.limit(at_once).with_for_update(skip_locked=True, of=webhook)).all()
    if rows:
        taken = update(webhook).where(webhook.c.job.in_([seq for seq, *_ in rows]))
        connection.execute(taken.values(due=again, attempts=webhook.c.attempts + 1))
    return [WebhookCall(job_id, url, secret, attempts + 1) for _, job_id, url, secret, attempts in rows]
