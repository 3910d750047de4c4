"""Errors as sentences and facts, for people who cannot see the worker's code."""

from graph.errors import NodeError, NodeTimeout, describe_error
from server.workers.messages import Failure, FailureKind

_BROKEN_DEVICE = ("CUDA error", "HIP error", "device-side assert", "AcceleratorError")


def failure_of(error: Exception) -> Failure:
    """What went wrong in a node."""
    if not isinstance(error, NodeError):
        return internal_failure(error)
    inner: NodeError = error
    while isinstance(inner.__cause__, NodeError):
        inner = inner.__cause__
    cause = inner.__cause__ or inner
    return Failure(
        kind=_kind(cause),
        type=type(cause).__name__,
        message=describe_error(cause),
        text=str(error),
        node_id=error.node_id,
        class_name=error.class_name,
        title=error.title,
        inside=None if inner is error else inner.node_id,
    )


def internal_failure(error: BaseException) -> Failure:
    """What went wrong outside of any node."""
    kind: FailureKind = "out_of_memory" if isinstance(error, MemoryError) else "internal"
    text = describe_error(error)
    return Failure(kind=kind, type=type(error).__name__, message=text, text=text)


def wear(failure: Failure) -> str | None:
    """Why a worker should not go on after a failure, if that is so."""
    if failure.kind == "timed_out":
        return "a node that was given up is still running"
    if failure.type == "AcceleratorError" or any(words in failure.message for words in _BROKEN_DEVICE):
        return "the device refuses to work for this process after an error"
    if failure.node_id is None and failure.kind == "out_of_memory":
        return "it ran out of memory"
    return None


def _kind(cause: BaseException) -> FailureKind:
    match cause:
        case NodeTimeout():
            return "timed_out"
        case MemoryError():
            return "out_of_memory"
        case _:
            return "node_failed"
