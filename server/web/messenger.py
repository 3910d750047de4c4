"""Tells others that jobs are over: takes what is due from the database, sends it signed, and tries again what fails.

What is to be told stays in the database until it was told, so it outlives the server; and each receiver is talked to
in a task of its own, so one that does not answer keeps nobody waiting.
"""

import asyncio
import json
import logging
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version

from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from aiohttp.client_exceptions import ClientConnectorError

from server.database.errors import DatabaseError, JobNotFound
from server.database.job_history import JobHistory
from server.database.jobs import Job
from server.database.webhooks import WebhookCall, Webhooks
from server.web.job_forms import told_of
from server.web.public_addresses import PrivateAddress, PublicResolver, refuse_private
from server.web.signatures import signed_headers

log = logging.getLogger("latentloom.server")

LOOK_SECONDS = 2.0
"""What is due is looked for so often: a second try, or the end of a job that another server saw."""
AT_ONCE = 32
FIRST_PAUSE = timedelta(seconds=5)
"""Before the second try; then twice as long each time."""
MOST_ATTEMPTS = 12
LONGEST_PAUSE = timedelta(hours=6)
GONE = 410


@dataclass(slots=True, kw_only=True)
class Messenger:
    """Delivers webhooks. `work` goes on until `stop` is called.

    Args:
        secret: signs what has no secret of its own.
        allow_private: whether receivers may be in private networks, which this server may see and strangers may not.
        patience: seconds for a whole call.
    """

    webhooks: Webhooks
    history: JobHistory
    secret: str
    allow_private: bool = False
    patience: float = 10.0
    _bell: asyncio.Event = field(default_factory=asyncio.Event)
    _calls: dict["asyncio.Task[None]", WebhookCall] = field(default_factory=dict["asyncio.Task[None]", WebhookCall])
    _stopping: bool = False

    def wake(self) -> None:
        """Say that there may be something to tell."""
        self._bell.set()

    def stop(self) -> None:
        """Begin no more calls, and break off those that are under way: they are made at the next start."""
        self._stopping = True
        self._bell.set()

    def refuse(self, url: str) -> None:
        """Refuse a receiver that cannot be, as far as its URL says. Raises ValueError or PrivateAddress."""
        if not self.allow_private:
            refuse_private(url)

    async def work(self) -> None:
        """Tell what is due, as it becomes due."""
        connector = TCPConnector(resolver=None if self.allow_private else PublicResolver(), limit=AT_ONCE)
        # No cookies, no proxies and no passwords of the server's own surroundings: receivers are strangers' choice.
        async with ClientSession(
            connector=connector,
            timeout=ClientTimeout(total=self.patience),
            cookie_jar=DummyCookieJar(),
            trust_env=False,
            headers={"User-Agent": f"Latentloom/{_version()}", "Content-Type": "application/json"},
        ) as session:
            while not self._stopping:
                self._bell.clear()
                for call in await self._due():
                    task = asyncio.create_task(self._tell(session, call))
                    self._calls[task] = call
                    task.add_done_callback(self._calls.pop)
                if not self._stopping:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._bell.wait(), LOOK_SECONDS)
            await self._break_off()

    async def _break_off(self) -> None:
        calls = dict(self._calls)
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        for call in calls.values():
            # Whoever comes next need not wait until nothing was heard for long. What was delivered stays so.
            with suppress(DatabaseError):
                await self.webhooks.failed(call, "the server was stopped meanwhile", timedelta(0))

    async def _due(self) -> Sequence[WebhookCall]:
        room = AT_ONCE - len(self._calls)
        try:
            return await self.webhooks.take(room) if room > 0 else ()
        except DatabaseError as error:
            log.warning("webhooks cannot be looked up: %s", error)
        except Exception:
            log.exception("a mistake of this server in looking webhooks up")
        return ()

    async def _tell(self, session: ClientSession, call: WebhookCall) -> None:
        try:
            why, again = await self._outcome(session, call)
            if why is None:
                await self.webhooks.delivered(call)
                return
            pause = _pause(call.attempt) if again else None
            ends = "it is given up" if pause is None else f"another try follows in {pause.total_seconds():.0f} s"
            log.info("job %s: its webhook was not delivered: %s; %s", call.job_id, why, ends)
            await self.webhooks.failed(call, why, pause)
        except DatabaseError as error:  # after a while it is handed out again
            log.warning("job %s: what came of its webhook cannot be written down: %s", call.job_id, error)
        except Exception:
            log.exception("job %s: a mistake of this server in its webhook", call.job_id)

    async def _outcome(self, session: ClientSession, call: WebhookCall) -> tuple[str | None, bool]:
        """Why it could not be told, and whether that may change. None: it was told."""
        try:
            job = await self.history.job(call.job_id)
        except JobNotFound:
            return "the job was forgotten meanwhile", False
        body = await asyncio.to_thread(lambda: json.dumps(told_of(job)).encode())
        headers = signed_headers(call.secret or self.secret, _message_id(job), int(time.time()), body)
        try:
            self.refuse(call.url)
            async with session.post(call.url, data=body, headers=headers, allow_redirects=False) as answer:
                status = answer.status
        except (PrivateAddress, ValueError) as error:
            return str(error), False
        except TimeoutError:
            return f"no answer came within {self.patience:g} seconds", True
        except ClientConnectorError as error:
            if isinstance(error.os_error, PrivateAddress):
                return str(error.os_error), False
            return f"{error.host} cannot be reached", True
        except (ClientError, OSError) as error:
            return f"the connection failed: {type(error).__name__}", True
        if 200 <= status < 300:
            return None, False
        advice = ", and redirections are not followed" if 300 <= status < 400 else ""
        return f"it answered {status}{advice}", status != GONE


def _pause(attempt: int) -> timedelta | None:
    """How long to wait after so many attempts; None: there are no more."""
    if attempt >= MOST_ATTEMPTS:
        return None
    # Not all at the same moment, when a receiver of many comes back.
    return min(FIRST_PAUSE * 2 ** (attempt - 1), LONGEST_PAUSE) * random.uniform(0.9, 1.1)


def _message_id(job: Job) -> str:
    """The same for every attempt, so that a receiver knows what it has heard; another one when a job is tried again."""
    ended = job.finished or job.created
    return f"{job.id}-{ended.timestamp() * 1000:.0f}"


def _version() -> str:
    try:
        return version("latentloom")
    except PackageNotFoundError:
        return "0"
