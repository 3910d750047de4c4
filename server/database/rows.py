"""Jobs as rows, and rows as jobs."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping, Select, select

from server.database.documents import EMPTY, Document
from server.database.jobs import LONGEST_LABEL, PRIORITIES, Job, JobError, JobSummary, Lost, NewJob, NodeTiming, Outcome
from server.database.tables import EPOCH, MILLISECOND, document, job, milliseconds
from server.database.texts import made_storable

Row = RowMapping
Query = Select[*tuple[Any, ...]]

_workflow = document.alias("workflow_document")
_extra = document.alias("extra_document")

SUMMARY = (
    job.c.seq,
    job.c.id,
    job.c.owner,
    job.c.client_id,
    job.c.priority,
    job.c.number,
    job.c.state,
    job.c.created,
    job.c.started,
    job.c.finished,
    job.c.duration,
    job.c.attempts,
    job.c.worker,
    job.c.cancelling,
    job.c.workflow_id,
    job.c.label,
    job.c.ran,
    job.c.reused,
    job.c.error,
    job.c.summary,
)
"""What a list needs of a job."""

WHOLE: Query = (
    select(job, _workflow.c.text.label("workflow_text"), _extra.c.text.label("extra_text"))
    .join(_workflow, job.c.workflow == _workflow.c.id)
    .outerjoin(_extra, job.c.extra == _extra.c.id)
)
"""Jobs with their documents, and with their secret."""

NOT_STARTED: Mapping[str, Any] = {
    "started": None,
    "finished": None,
    "duration": 0,
    "attempts": 0,
    "worker": None,
    "expires": None,
    "cancelling": False,
    "ran": 0,
    "reused": 0,
    "error": None,
    "summary": None,
    "losses": None,
    "timings": None,
    "record": None,
    "outputs": None,
}


def new_row(new: NewJob, number: float, now: datetime, documents: Mapping[str, int]) -> dict[str, Any]:
    """A job that waits. `documents` are the rows of its documents by their texts."""
    label = made_storable(new.label, LONGEST_LABEL)
    return {
        **NOT_STARTED,
        "id": new.id,
        "owner": new.owner,
        "client_id": new.client_id,
        "priority": PRIORITIES.index(new.priority),
        "number": number,
        "state": "queued",
        "created": now,
        "claims": 0,
        "workflow_id": new.workflow_id,
        "label": label,
        "searched": f"{new.id} {label}".casefold(),
        "workflow": documents[new.workflow.text],
        "extra": documents.get(new.extra.text),
        "overrides": dict(new.overrides) or None,
        "targets": None if new.targets is None else list(new.targets),
        "secret": dict(new.secret) or None,
    }


def outcome_row(outcome: Outcome) -> dict[str, Any]:
    """What became of a job."""
    return {
        "state": outcome.state,
        "ran": outcome.ran,
        "reused": outcome.reused,
        "error": outcome.error and asdict(outcome.error),
        "summary": dict(outcome.summary) or None,
        "timings": [_timing(each) for each in outcome.timings] or None,
        "record": None if outcome.record == EMPTY else outcome.record.text,
        "outputs": None if outcome.outputs == EMPTY else outcome.outputs.text,
    }


def _timing(timing: NodeTiming) -> tuple[object, ...]:
    # By hand, as there may be ten thousand of them, and `astuple` copies deeply.
    return timing.node_id, timing.node_class, timing.start, timing.seconds, timing.course, timing.parent


def loss_entry(worker: str, cause: str, now: datetime, started: datetime | None) -> Mapping[str, Any]:
    began = None if started is None else milliseconds(started)
    return {"worker": worker, "cause": cause, "time": milliseconds(now), "started": began}


def summary_of(row: Row) -> JobSummary:
    return JobSummary(**_summary(row))


def job_of(row: Row) -> Job:
    """A row of `WHOLE`."""
    return Job(
        **_summary(row),
        workflow=Document(row["workflow_text"]),
        extra=_document(row["extra_text"]),
        overrides=row["overrides"] or {},
        targets=None if row["targets"] is None else tuple(row["targets"]),
        outputs=_document(row["outputs"]),
        record=_document(row["record"]),
        timings=tuple(NodeTiming(*timing) for timing in row["timings"] or ()),
        losses=tuple(map(_lost, row["losses"] or ())),
    )


def _summary(row: Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "owner": row["owner"],
        "client_id": row["client_id"],
        "priority": PRIORITIES[row["priority"]],
        "number": row["number"],
        "state": row["state"],
        "created": row["created"],
        "started": row["started"],
        "finished": row["finished"],
        "attempts": row["attempts"],
        "worker": row["worker"],
        "cancelling": row["cancelling"],
        "workflow_id": row["workflow_id"],
        "label": row["label"],
        "ran": row["ran"],
        "reused": row["reused"],
        "error": row["error"] and JobError(**row["error"]),
        "summary": row["summary"] or {},
    }


def _lost(loss: Mapping[str, Any]) -> Lost:
    started: int | None = loss.get("started")
    began = None if started is None else EPOCH + started * MILLISECOND
    return Lost(loss["worker"], loss["cause"], EPOCH + loss["time"] * MILLISECOND, began)


def _document(text: str | None) -> Document:
    return EMPTY if text is None else Document(text)
