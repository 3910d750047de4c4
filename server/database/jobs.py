"""A job, from what was asked for to what became of it: the values that go into the queue and come out of it."""

import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

from server.database.documents import EMPTY, Document
from server.database.errors import WrongRequest
from server.database.texts import storable

State = Literal["queued", "running", "done", "failed", "cancelled"]
Ending = Literal["done", "failed", "cancelled"]
Priority = Literal["interactive", "normal", "background"]

STATES: tuple[State, ...] = get_args(State)
ENDINGS: tuple[Ending, ...] = get_args(Ending)
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
"""The most urgent first."""

MOST_ATTEMPTS = 3
"""So often may workers die over one job."""
LONGEST_LABEL = 2000


def is_job_id(text: str) -> bool:
    """Whether this is a UUID as it is usually written: lower case, with hyphens."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWebhook:
    """Whom to tell when a job is over.

    Args:
        secret: signs what is sent; it is kept for as long as the job.
        endings: the ways to end that are told of; None: all.
    """

    url: str
    secret: str | None = None
    endings: Sequence[Ending] | None = None

    def __post_init__(self) -> None:
        storable("webhook's URL", self.url, 2000)
        storable("webhook's secret", self.secret or "")
        if any(ending not in ENDINGS for ending in self.endings or ()):
            raise WrongRequest(f"a webhook is told of endings: {', '.join(ENDINGS)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job as it is asked for.

    Jobs of one batch should share one `workflow` and differ in their `overrides`: each document is stored once.

    Args:
        id: a UUID in lower case with hyphens.
        owner: whose job it is; empty where nobody is told apart.
        client_id: who is told of its progress.
        priority: the class; all of a more urgent class goes first.
        number: the place within the class, lower first, finite; left out, it goes behind all that came before it.
        front: instead of behind them in front of them; counts only where `number` is left out.
        overrides: JSON values by name, for whoever runs the job to apply to the workflow.
        targets: the ids of the output nodes to run; all if left out.
        extra: JSON that is passed on to the nodes, and shown to whoever may see the job.
        secret: JSON that is passed on to the worker alone and forgotten when the job is over.
        workflow_id: the id that the editor gave the workflow.
        label: what a search finds, for example title and prompts; 2,000 characters of it are kept.

    Raises:
        WrongRequest: a value is outside of what is said here.
    """

    workflow: Document
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    owner: str = ""
    client_id: str | None = None
    priority: Priority = "normal"
    number: float | None = None
    front: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict[str, Any])
    targets: Sequence[str] | None = None
    extra: Document = EMPTY
    secret: Mapping[str, Any] = field(default_factory=dict[str, Any])
    workflow_id: str | None = None
    label: str = ""
    webhook: NewWebhook | None = None

    def __post_init__(self) -> None:
        if not is_job_id(self.id):
            raise WrongRequest(f"a job's id is a UUID in lower case with hyphens, not {self.id!a:.80}")
        if self.priority not in PRIORITIES:
            raise WrongRequest(f"a job's priority is one of {', '.join(PRIORITIES)}, not {self.priority!a:.80}")
        if self.number is not None and not _finite(self.number):
            raise WrongRequest(f"a job's number is a finite number, not {self.number!a:.80}")
        storable("owner's name", self.owner)
        storable("client's id", self.client_id or "")
        storable("workflow's id", self.workflow_id or "")


def _finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number beyond any float
        return False


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job that is on disk."""

    id: str
    number: float
    created: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class JobError:
    """Why a job failed: a sentence, and where it happened. `details` is JSON; no traceback belongs into it."""

    type: str
    message: str
    node_id: str | None = None
    node_class: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])


Course = Literal["run", "reused", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class NodeTiming:
    """When a node ran, in seconds after its job was started, and for how many.

    `parent` is the composite that it is a step of; None: it stands in the document. What was reused took no time.
    """

    node_id: str
    node_class: str
    start: float
    seconds: float
    course: Course = "run"
    parent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a job.

    Args:
        outputs: what the output nodes have to show, a JSON object by node id.
        ran: how many steps ran, and `reused`: how many were taken from the store.
        summary: JSON for lists of jobs, a few hundred bytes: the numbers of outputs, one to show.
        record: JSON for whoever looks at the job itself: node ids shown by others, messages of state.
    """

    state: Ending
    outputs: Document = EMPTY
    error: JobError | None = None
    timings: Sequence[NodeTiming] = ()
    ran: int = 0
    reused: int = 0
    summary: Mapping[str, Any] = field(default_factory=dict[str, Any])
    record: Document = EMPTY


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker that died over a job: its name, what happened, and when; and when it had been given the job."""

    worker: str
    cause: str
    time: datetime
    started: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSummary:
    """A job as lists show it.

    `started` is when the last attempt began, `finished` when the job was over; times are UTC. `attempts` counts
    those that were not given back. `cancelling`: it runs, and was asked to stop.
    """

    id: str
    owner: str
    client_id: str | None
    priority: Priority
    number: float
    state: State
    created: datetime
    started: datetime | None
    finished: datetime | None
    attempts: int
    worker: str | None
    cancelling: bool
    workflow_id: str | None
    label: str
    ran: int
    reused: int
    error: JobError | None
    summary: Mapping[str, Any]

    @property
    def seconds(self) -> float | None:
        """How long the last attempt took, once it is over."""
        if self.started is None or self.finished is None:
            return None
        return (self.finished - self.started).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(JobSummary):
    """A job with everything but its secret."""

    workflow: Document
    extra: Document
    overrides: Mapping[str, Any]
    targets: tuple[str, ...] | None
    outputs: Document
    record: Document
    timings: tuple[NodeTiming, ...]
    losses: tuple[Lost, ...]


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on a job. `number` counts how often the job was claimed, so an old lease is told from a new."""

    job_id: str
    worker: str
    number: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A job for a worker, who holds it until `expires` or longer if it is heard of before."""

    lease: Lease
    expires: datetime
    job: Job
    secret: Mapping[str, Any]
