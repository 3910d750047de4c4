"""Weights in a prompt: `(words)`, `(words:1.2)`, nested, with `\\(` and `\\)` for parentheses themselves."""

import math
import re
from typing import NamedTuple

EMPHASIS = 1.1
DEEPEST = 100
"""Parentheses nested deeper than this stay text: 1.1 to the hundredth is already a weight of 13,780."""

_UNITS = re.compile(r"\\[()]|.", re.DOTALL)


class Weighted(NamedTuple):
    """A stretch of text and how much it counts."""

    text: str
    weight: float


def parse_weights(prompt: str) -> list[Weighted]:
    """The prompt in stretches of equal weight.

    `(text)` counts 1.1 times, nested ones multiply; `(text:1.3)` sets the weight and forgets those around it. What
    stands after the colon and is no finite number is text. A parenthesis without its partner is text.
    """
    found: list[Weighted] = []
    pending = [(_UNITS.findall(prompt), 1.0, 0)]
    while pending:
        units, weight, depth = pending.pop()
        if depth and (depth > DEEPEST or not _is_group(units)):
            found.append(_plain(units, weight))
            continue
        if depth:
            units, weight = _open(units, weight)
        pending += [(part, weight, depth + 1) for part in reversed(_split(units))]
    return found


def _plain(units: list[str], weight: float) -> Weighted:
    return Weighted("".join(unit[-1] if len(unit) == 2 else unit for unit in units), weight)


def _is_group(units: list[str]) -> bool:
    return len(units) >= 2 and units[0] == "(" and units[-1] == ")"


def _open(group: list[str], weight: float) -> tuple[list[str], float]:
    """What is inside a group, and its weight."""
    inner = group[1:-1]
    colon = max((index for index, unit in enumerate(inner) if unit == ":"), default=0)
    if colon > 0:
        stated = _number("".join(inner[colon + 1 :]))
        if stated is not None:
            return inner[:colon], stated
    return inner, weight * EMPHASIS


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _split(units: list[str]) -> list[list[str]]:
    """The text cut before and after its outermost groups."""
    parts: list[list[str]] = [[]]
    nesting = 0
    for unit in units:
        if unit == "(":
            if nesting == 0:
                parts.append([])
            nesting += 1
        parts[-1].append(unit)
        if unit == ")":
            nesting -= 1
            if nesting == 0:
                parts.append([])
    return [part for part in parts if part]
