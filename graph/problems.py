"""What can be wrong with a workflow, said so that a person can mend it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

ProblemKind = Literal[
    "not_a_workflow",
    "unknown_class",
    "missing_input",
    "wrong_type",
    "out_of_range",
    "not_a_choice",
    "missing_file",
    "bad_link",
    "missing_node",
    "missing_output",
    "type_mismatch",
    "cycle",
    "no_output",
    "unknown_target",
]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong, with the place where it is wrong."""

    kind: ProblemKind
    message: str
    node_id: str | None = None
    title: str | None = None
    class_name: str | None = None
    input: str | None = None
    expected: str | None = None
    found: str | None = None
    suggestion: str | None = None

    def __str__(self) -> str:
        place = describe_step(self.node_id, self.class_name, self.title) if self.node_id is not None else ""
        if self.input:
            place += f", input {self.input!r}"
        text = f"{place}: {self.message}" if place else self.message
        return f"{text} ({self.suggestion})" if self.suggestion else text


class InvalidWorkflow(ValueError):
    """The workflow cannot be run; `problems` holds everything that is wrong with it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def describe_step(node_id: str | None, class_name: str | None, title: str | None) -> str:
    """How every message names a step: `node 3 (KSampler “First pass”)`."""
    name = class_name or "?"
    if node_id is not None and len(node_id) > 60:
        node_id = f"{node_id[:24]}…{node_id[-24:]}"
    return f"node {node_id} ({name} “{title}”)" if title and not same_name(title, name) else f"node {node_id} ({name})"


def same_name(title: str, class_name: str) -> bool:
    """Whether a title says no more than the class, as an editor's default titles do (`VAE Decode`, `VAEDecode`)."""
    return title.replace(" ", "").casefold() == class_name.casefold()


def nearest(word: object, known: Iterable[object]) -> str | None:
    """The choice somebody probably meant, as a suggestion."""
    if not isinstance(word, str):
        return None
    by_folded = {str(choice).casefold(): str(choice) for choice in known}
    found = get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6)
    return f"did you mean {by_folded[found[0]]!r}?" if found else None


def listed(choices: Sequence[object], most: int = 12) -> str:
    """Choices for a message, cut when there are many."""
    shown = ", ".join(repr(choice) for choice in choices[:most])
    return f"{shown} and {len(choices) - most} more" if len(choices) > most else shown
