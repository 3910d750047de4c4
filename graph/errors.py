"""What can happen to a run."""

from typing import cast

from graph.problems import describe_step


class NodeError(Exception):
    """A node failed. Names the step and keeps the cause as `__cause__`."""

    def __init__(self, node_id: str, class_name: str, title: str | None, cause: BaseException) -> None:
        self.node_id = node_id
        self.class_name = class_name
        self.title = title
        self.__cause__ = cause
        super().__init__(f"{describe_step(node_id, class_name, title)} failed: {describe_error(cause)}")


class WrongResult(TypeError):
    """A node's function returned something else than it is declared to return."""

    def __init__(self, expected: str, found: object) -> None:
        super().__init__(f"it should return {expected}, but it returned {_described(found)}")


class WrongInput(ValueError):
    """A literal input that arrived by a link does not fit."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"input {name!r}: {reason}")


class Cancelled(Exception):
    """The run was cancelled. Results made before are kept."""


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
