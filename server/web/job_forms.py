"""Jobs in the shapes that clients of the protocol read: queue items, history entries (§4), and `/jobs` (§15)."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, Field

from server.database.jobs import Job, JobError, JobSummary, State
from server.database.webhooks import WebhookStatus

Json = dict[str, Any]

STATUS: Mapping[State, str] = {
    "queued": "pending",
    "running": "in_progress",
    "done": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
}
STATES: Mapping[str, State] = {status: state for state, status in STATUS.items()}
PREVIEWABLE = ("images", "gifs", "video", "audio", "3d")


def queue_item(job: Job) -> str:
    """`[number, id, prompt, extra_data, outputs]` as JSON: workflows may be large, and are passed on as they are."""
    head = f"{json.dumps(number(job.number))},{json.dumps(job.id)}"
    return f"[{head},{job.workflow.text},{job.extra.text},{json.dumps(list(job.targets or ()))}]"


def history_entry(job: Job) -> str:
    """What `/history` says of a job that is over, as JSON."""
    record = job.record.value()
    meta, ended = json.dumps(record.get("meta", {})), json.dumps(status(job, record))
    return f'{{"prompt":{queue_item(job)},"outputs":{job.outputs.text},"meta":{meta},"status":{ended}}}'


def number(value: float) -> float:
    """A number of a job; whole ones are written without a point."""
    return int(value) if value.is_integer() else value


def status(job: JobSummary, record: Mapping[str, Any]) -> Json:
    """How a job ended, with the messages that told it."""
    done = job.state == "done"
    messages: list[Any] = record.get("messages") or []
    if not messages and job.error is not None:
        messages = [["execution_error", _told_late(job, job.error)]]
    return {"status_str": "success" if done else "error", "completed": done, "messages": messages}


def _told_late(job: JobSummary, error: JobError) -> Json:
    """What would have been told, had the worker lived to tell it."""
    return {
        "prompt_id": job.id,
        "node_id": error.node_id or "",
        "node_type": error.node_class or "",
        "exception_type": error.type,
        "exception_message": error.message.removeprefix(f"{error.type}: "),
        "executed": [],
        "traceback": [],
        "current_inputs": {},
        "current_outputs": [],
        "timestamp": _ms(job.finished),
    }


def job_entry(job: JobSummary) -> Json:
    """A job as `/jobs` lists it; fields without a value are left out."""
    summary = job.summary
    entry: Json = {
        "id": job.id,
        "status": STATUS[job.state],
        "priority": number(job.number),
        "create_time": _ms(job.created),
        "execution_start_time": _ms(job.started),
        "execution_end_time": _ms(job.finished),
        "execution_error": summary.get("error"),
        "outputs_count": summary.get("outputs_count", 0),
        "previewable_outputs_count": summary.get("previewable_outputs_count"),
        "preview_output": summary.get("preview_output"),
        "workflow_id": job.workflow_id,
        # What this server adds.
        "priority_class": job.priority,
        "attempts": job.attempts or None,
        "steps_run": job.ran or None,
        "steps_reused": job.reused or None,
        "label": job.label or None,
    }
    return {name: value for name, value in entry.items() if value is not None}


def job_details(job: Job, hook: WebhookStatus | None = None) -> Json:
    """One job with everything but its secret."""
    entry = job_entry(job)
    entry["workflow"] = {"prompt": job.workflow.value(), "extra_data": job.extra.value()}
    if job.finished is not None:
        entry["outputs"] = job.outputs.value()
        entry["execution_status"] = status(job, job.record.value())
    entry["node_times"] = {
        timing.node_id: {"class_type": timing.node_class, "start": timing.start, "seconds": timing.seconds}
        for timing in job.timings
        if timing.course == "run" and timing.parent is None
    }
    if job.losses:
        entry["lost_attempts"] = [
            {"worker": loss.worker, "cause": loss.cause, "time": _ms(loss.time)} for loss in job.losses
        ]
    if job.error is not None:
        entry["error"] = {
            "type": job.error.type,
            "message": job.error.message,
            "node_id": job.error.node_id,
            "node_class": job.error.node_class,
        }
    if hook is not None:
        entry["webhook"] = {
            "url": hook.url,
            "state": hook.state,
            "attempts": hook.attempts,
            "next_attempt": _ms(hook.due),
            "failure": hook.failure,
        }
    return entry


class JobOver(BaseModel):
    """What a webhook is told of a job that is over."""

    type: Literal["job.completed", "job.failed", "job.cancelled"]
    timestamp: Annotated[datetime, Field(description="When it ended.")]
    data: Annotated[Json, Field(description="The job as `/jobs` lists it, its id as `prompt_id`, and its outputs.")]


def told_of(job: Job) -> Json:
    """What a webhook is told, in the shape of `JobOver`."""
    entry = {**job_entry(job), "outputs": job.outputs.value()}
    if job.error is not None:
        entry["error"] = {"type": job.error.type, "message": job.error.message, "node_id": job.error.node_id}
    entry["prompt_id"] = entry.pop("id")
    ended = job.finished or job.created
    return {"type": f"job.{STATUS[job.state]}", "timestamp": ended.isoformat(), "data": entry}


def summary_of(outputs: Mapping[str, Json], error: Json | None) -> Json:
    """What lists of jobs say of outputs: how many, how many of them can be seen, and one to show."""
    listed: list[tuple[str, str, list[Any]]] = [
        (node_id, kind, cast("list[Any]", files))
        for node_id, output in outputs.items()
        for kind, files in output.items()
        if isinstance(files, list)
    ]
    shown: list[Json] = [
        {**cast(Json, file), "nodeId": node_id, "mediaType": kind}
        for node_id, kind, files in listed
        if kind in PREVIEWABLE
        for file in files
        if isinstance(file, dict)
    ]
    saved = [file for file in shown if file.get("type") == "output"]
    summary: Json = {
        "outputs_count": sum(len(files) for _, _, files in listed),
        "previewable_outputs_count": len(shown),
    }
    if shown:
        summary["preview_output"] = (saved or shown)[0]
    if error is not None:
        summary["error"] = error
    return summary


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else round(moment.timestamp() * 1000)
