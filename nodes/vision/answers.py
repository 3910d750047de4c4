"""What nodes that name pictures give: the likeliest label of each, all scores, and both as text."""

from collections.abc import Sequence
from typing import NamedTuple

from graph.node import Many

SHOWN = 5
"""How many labels the text names for each picture."""


class Named(NamedTuple):
    """The likeliest label of each picture; the scores of every label, picture by picture; the best ones as text."""

    labels: Many[str]
    scores: Many[float]
    table: str


def named(labels: Sequence[str], scores: Sequence[Sequence[float]], digits: int = 3) -> Named:
    """What each picture is, by its row of one score for each label. Of equal scores the first label counts."""
    orders = [sorted(range(len(labels)), key=lambda at, row=row: -row[at]) for row in scores]
    lines = [
        ", ".join(f"{labels[at]} {row[at]:.{digits}f}" for at in order[:SHOWN])
        for row, order in zip(scores, orders, strict=True)
    ]
    return Named([labels[order[0]] for order in orders], [score for row in scores for score in row], "\n".join(lines))


def lines_of(text: str, what: str) -> list[str]:
    """The lines that are not empty. Raises ValueError when there is none."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{what} is empty; write one on each line")
    return lines
