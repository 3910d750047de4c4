"""What can happen to a run."""

from traceback import clear_frames
from typing import cast

from graph.problems import describe_step
from graph.values import Shortage


class NodeError(Exception):
    """A node failed. Names the step and keeps the cause as `__cause__`."""

    def __init__(self, node_id: str, class_name: str, title: str | None, cause: BaseException) -> None:
        self.node_id = node_id
        self.class_name = class_name
        self.title = title
        self.__cause__ = cause
        inner, between = cause, 0
        while isinstance(inner, NodeError) and isinstance(inner.__cause__, NodeError):
            inner, between = inner.__cause__, between + 1
        place = f"{describe_step(node_id, class_name, title)} failed: "
        if between > 1:  # of composites inside composites the outermost and the innermost tell enough
            place += f"({between} composites further in) "
            cause = inner
        super().__init__(place + describe_error(cause))


class WrongResult(TypeError):
    """A node's function returned something else than it is declared to return."""

    def __init__(self, expected: str, found: object) -> None:
        super().__init__(f"it should return {expected}, but it returned {_described(found)}")


class WrongInput(ValueError):
    """A literal input that arrived by a link does not fit."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"input {name!r}: {reason}")


class InputChanged(RuntimeError):
    """A node's function changed what it was given, which others are given too."""

    def __init__(self, name: str) -> None:
        super().__init__(f"it changes its input {name!r} in place; values are shared, so it has to work on a copy")


class NodeTimeout(TimeoutError):
    """A node did not return in time."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"it had not returned after {seconds:g} seconds, and is waited for no longer")


class OutOfMemory(MemoryError):
    """There was not enough memory, also not after everything idle had been freed."""

    def __init__(self, shortage: Shortage) -> None:
        self.shortage = shortage
        super().__init__(f"out of memory: {shortage}")


class Cancelled(Exception):
    """The run was cancelled. Results made before are kept."""


class StrayCancellation(RuntimeError):
    """A node says that it was cancelled, and nobody has cancelled its run."""

    def __init__(self) -> None:
        super().__init__("something that it ran was cancelled, though its own run was not")


class RunFailed(Exception):
    """One or more nodes failed; `failures` holds a NodeError each."""

    def __init__(self, failures: tuple[NodeError, ...]) -> None:
        self.failures = failures
        super().__init__("\n".join(str(failure) for failure in failures))


def describe_error(error: BaseException) -> str:
    """An error in one sentence; the type's name leads unless the error is one that explains itself."""
    text = str(error).strip()
    if text and type(error).__module__.partition(".")[0] in _OWN_PACKAGES:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def let_go_of(error: BaseException | None) -> None:
    """Free what the frames of a failed call hold (tensors, say); the traceback keeps its lines."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _described(value: object) -> str:
    match value:
        case None:
            return "None"
        case tuple():
            return f"a tuple of {len(cast('tuple[object, ...]', value))}"
        case _:
            name = type(value).__name__
            return f"an {name}" if name[0] in "aeiouAEIOU" else f"a {name}"


_OWN_PACKAGES = {"graph", "nodes", "server", "workflows"}
