"""How jobs end: what becomes of a run in the history, and what is told of it beside what the run told itself."""

from collections.abc import Sequence
from typing import NamedTuple

from server.database.documents import Document
from server.database.jobs import JobError, Outcome
from server.web.job_forms import summary_of
from server.web.narrator import Narrator, Told
from server.web.running_jobs import Running
from server.workers.messages import JobResult


class Ending(NamedTuple):
    """What is written down of a job, and what is still to be told."""

    outcome: Outcome
    told: Sequence[Told] = ()


def of_result(running: Running, result: JobResult) -> Ending:
    """That of a job which a worker has been at to the end, with success or without."""
    match result.status:
        case "cancelled":
            return interrupted(running, result)
        case "invalid":
            sentence = "\n".join(map(str, result.problems)) or "this workflow cannot run"
            return broken(running, "InvalidWorkflow", sentence, result)
        case "failed":
            return _failed(running, result)
        case _:
            return Ending(_recorded(running, Outcome(state="done", ran=result.ran, reused=result.reused)))


def _failed(running: Running, result: JobResult) -> Ending:
    failure = result.failures[0] if result.failures else None
    if failure is None:
        return broken(running, "EngineError", "the engine failed without saying why", result)
    if failure.node_id is None:
        return broken(running, failure.type, failure.message, result)
    error = JobError(
        type=failure.type,
        message=failure.message,
        node_id=failure.node_id,
        node_class=failure.class_name,
        details={"text": failure.text, "kind": failure.kind},
    )
    return Ending(_recorded(running, Outcome(state="failed", error=error, ran=result.ran, reused=result.reused)))


def broken(running: Running, kind: str, sentence: str, result: JobResult | None = None) -> Ending:
    """That of a job which failed outside of any node."""
    told = [] if _ended(running.narrator) else [running.narrator.broken(kind, sentence)]
    ran, reused = (result.ran, result.reused) if result else (0, 0)
    error = JobError(type=kind, message=sentence)
    return Ending(_recorded(running, Outcome(state="failed", error=error, ran=ran, reused=reused)), told)


def interrupted(running: Running, result: JobResult | None = None) -> Ending:
    """That of a job which somebody has stopped."""
    told = [] if _ended(running.narrator) else [running.narrator.interrupted()]
    ran, reused = (result.ran, result.reused) if result else (0, 0)
    return Ending(_recorded(running, Outcome(state="cancelled", ran=ran, reused=reused)), told)


def _recorded(running: Running, outcome: Outcome) -> Outcome:
    """With all that was told of the job."""
    narrator = running.narrator
    messages = [[kind, data] for kind, data in narrator.lasting]
    said = next((data for kind, data in narrator.lasting if kind == "execution_error"), None)
    return Outcome(
        state=outcome.state,
        outputs=Document.of(narrator.outputs),
        error=outcome.error,
        timings=tuple(running.diary.timings),
        ran=outcome.ran,
        reused=outcome.reused,
        summary=summary_of(narrator.outputs, said),
        record=Document.of({"meta": narrator.meta, "messages": messages, **running.diary.record}),
    )


def _ended(narrator: Narrator) -> bool:
    """Whether the run itself has said how it ended."""
    return any(
        kind in ("execution_error", "execution_interrupted", "execution_success") for kind, _ in narrator.lasting
    )
