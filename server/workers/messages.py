"""What the server and its workers say to each other: frozen values, and who says which.

JSON that is only passed on (workflows, what outputs show) stays JSON: bytes in UTF-8, which nobody on the way reads.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from graph.problems import Problem
from server.workers.framing import Blob, Language
from server.workers.options import WorkerOptions

# Jobs.


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFolders:
    """Where a job finds input files and leaves what it makes; all absolute."""

    output: Path
    uploads: Path
    temporary: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A workflow to run.

    Args:
        id: any text that no other job has at the same time.
        workflow: in API-format.
        targets: the ids of the nodes whose results are wanted; None: all output nodes.
        extra: a JSON object of documents that saved files carry beside the workflow, by name.
        priority: what it is worth against other runs in the same engine; higher goes first.
        node_timeout: seconds after which a node that has not returned counts as failed; None: never.
        previews: whether pictures of work in progress are wanted.
        folders: those of the job's owner; None: the worker's own.
    """

    id: str
    workflow: Blob
    targets: tuple[str, ...] | None = None
    extra: Blob = b"{}"
    priority: int = 0
    node_timeout: float | None = None
    previews: bool = False
    folders: JobFolders | None = None

    @staticmethod
    def of(
        job_id: str,
        workflow: Mapping[str, Any],
        *,
        targets: Sequence[str] | None = None,
        extra: Mapping[str, Any] | None = None,
        priority: int = 0,
        node_timeout: float | None = None,
        previews: bool = False,
    ) -> "Job":
        """A job from Python objects."""
        return Job(
            id=job_id,
            workflow=json.dumps(workflow).encode(),
            targets=None if targets is None else tuple(targets),
            extra=json.dumps(extra or {}).encode(),
            priority=priority,
            node_timeout=node_timeout,
            previews=previews,
        )


FailureKind = Literal["node_failed", "out_of_memory", "timed_out", "internal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Something that went wrong, without a traceback; that is in the worker's log.

    Args:
        kind: `internal` is a fault of the engine, not of a node.
        type: the class of what was raised.
        message: what was raised, in a sentence; `text` says where as well.
        node_id: the node of the document.
        inside: the step inside that node which failed, if it is a composite.
    """

    kind: FailureKind
    type: str
    message: str
    text: str
    node_id: str | None = None
    class_name: str | None = None
    title: str | None = None
    inside: str | None = None


Status = Literal["done", "failed", "cancelled", "invalid", "handed_back"]
"""`invalid`: it cannot run. `handed_back`: its worker was told to stop first; what was made of it is in the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookups:
    """How often a job asked the store, by the tier that had the answer; `missed`: none had."""

    memory: int = 0
    disk: int = 0
    missed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """What came of a job.

    Args:
        outputs: a JSON object: what the output nodes have to show, by node id. After a failure, that of the others.
        files: paths of the files that output nodes wrote, by node id.
        failures: of nodes of the document.
        problems: everything that is wrong with an invalid workflow.
        warnings: sentences about a workflow that can run.
        ran: how many steps ran, and `reused`: how many were taken from the store.
        lookups: what the store had.
        seconds: how long it took.
        worker: the name of the one who ran it; empty if nobody did.
    """

    status: Status
    outputs: Blob = b"{}"
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    failures: tuple[Failure, ...] = ()
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    ran: int = 0
    reused: int = 0
    lookups: Lookups = Lookups()
    seconds: float = 0.0
    worker: str = ""


# What happens to a job. `graph/events.py` says what each means; `at` is in seconds after the job began.


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """Steps are planned: `reused` come from the store, `needed` will run."""

    kind: Literal["run_started"] = "run_started"
    at: float
    needed: tuple[str, ...]
    reused: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEvent:
    """Something about one step. `parent` is the composite it belongs to, if it is not in the document itself."""

    at: float
    node_id: str
    class_name: str
    title: str | None
    parent: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStarted(NodeEvent):
    """The step begins to run."""

    kind: Literal["node_started"] = "node_started"
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReused(NodeEvent):
    """The step's result was taken from the store."""

    kind: Literal["node_reused"] = "node_reused"


MediaType = Literal["image/jpeg", "image/png"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An encoded picture; a `result` is what its node is for, and is never left out."""

    media_type: MediaType
    data: Blob
    result: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProgressed(NodeEvent):
    """The step reached `value` of `maximum`. Not all of them are told, but always the last before something else."""

    kind: Literal["node_progressed"] = "node_progressed"
    value: float
    maximum: float
    preview: Picture | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFinished(NodeEvent):
    """The step is done. `ui` is what it has to show, a JSON object, and `files` what it wrote, if it is an output."""

    kind: Literal["node_finished"] = "node_finished"
    seconds: float
    ui: Blob | None = None
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSkipped(NodeEvent):
    """The step was not run, because something it takes is blocked. `message` is what the blocking node had to say."""

    kind: Literal["node_skipped"] = "node_skipped"
    message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFailed(NodeEvent):
    """The step failed."""

    kind: Literal["node_failed"] = "node_failed"
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """The run is over: `ok`, `failed` (some outputs may exist all the same) or `cancelled`."""

    kind: Literal["run_finished"] = "run_finished"
    at: float
    status: str
    seconds: float


JobEvent = Annotated[
    RunStarted | NodeStarted | NodeReused | NodeProgressed | NodeFinished | NodeSkipped | NodeFailed | RunFinished,
    Field(discriminator="kind"),
]

# What the server says.


@dataclass(frozen=True, slots=True, kw_only=True)
class Configure:
    """The first thing said: who the worker is."""

    kind: Literal["configure"] = "configure"
    name: str
    device: str
    options: WorkerOptions
    orphan_seconds: float
    """For how long it may hang before it ends by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunJob:
    """Begin a job. There is no other at this time."""

    kind: Literal["run"] = "run"
    job: Job


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelJob:
    """Stop this job, if it is the one that runs."""

    kind: Literal["cancel"] = "cancel"
    job_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Free:
    """Let go of models, or of the results kept in memory, when no job runs."""

    kind: Literal["free"] = "free"
    request: int
    models: bool
    memory: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Describe:
    """Say which nodes there are, and what each can choose from now."""

    kind: Literal["describe"] = "describe"
    request: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspect:
    """Say how the device is."""

    kind: Literal["inspect"] = "inspect"
    request: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Take no more jobs, hand the present one back after its present step, and end."""

    kind: Literal["stop"] = "stop"


ToWorker = Annotated[
    Configure | RunJob | CancelJob | Free | Describe | Inspect | Stop,
    Field(discriminator="kind"),
]

# What a worker says.


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """It can take jobs."""

    kind: Literal["ready"] = "ready"
    nodes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CannotStart:
    """It cannot, and ends. `message` is a sentence for whoever can mend it."""

    kind: Literal["cannot_start"] = "cannot_start"
    message: str


@dataclass(frozen=True, slots=True)
class ResidentModel:
    """A network in memory."""

    name: str
    nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Alive:
    """A sign of life. `rss` is the memory it holds in bytes, None where the system does not tell."""

    kind: Literal["alive"] = "alive"
    rss: int | None
    models: tuple[ResidentModel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """Something happened to a job."""

    kind: Literal["happened"] = "happened"
    job_id: str
    event: JobEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A job is over. `worn` says why the worker should not be given another one, if that is so."""

    kind: Literal["ended"] = "ended"
    job_id: str
    result: JobResult
    worn: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Freed:
    """Answers Free: how many bytes of models and results were let go."""

    kind: Literal["freed"] = "freed"
    request: int
    nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """Answers Describe: ComfyUI's `object_info` as JSON."""

    kind: Literal["described"] = "described"
    request: int
    content: Blob


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device as `/system_stats` tells of it. Memory is in bytes; `torch_*` is what torch has taken of it."""

    name: str
    type: str
    index: int | None
    vram_total: int
    vram_free: int
    torch_vram_total: int
    torch_vram_free: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """Answers Inspect."""

    kind: Literal["inspected"] = "inspected"
    request: int
    device: Device


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Answers a request that came to nothing."""

    kind: Literal["refused"] = "refused"
    request: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """A log record, tracebacks included."""

    kind: Literal["logged"] = "logged"
    level: int
    logger: str
    message: str
    job_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """It takes no more jobs and ends when the present one has: somebody told it so."""

    kind: Literal["leaving"] = "leaving"


FromWorker = Annotated[
    Ready | CannotStart | Alive | Happened | Ended | Freed | Described | Inspected | Refused | Logged | Leaving,
    Field(discriminator="kind"),
]

TO_WORKER: Language[ToWorker] = Language(lambda: TypeAdapter(ToWorker))
FROM_WORKER: Language[FromWorker] = Language(lambda: TypeAdapter(FromWorker))
