"""Sizes and spans of time as people write them: `20GiB`, `500MB`, `7d`."""

import re
from typing import Any

import click

BYTES = {"": 1, "b": 1} | {
    f"{letter}{unit}": base**power
    for power, letter in enumerate("kmgt", 1)
    for unit, base in (("", 1024), ("b", 1000), ("ib", 1024))
}
SECONDS = {"": 86400, "s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class Quantity(click.ParamType[Any]):
    """A number with a unit, as a number of the smallest one."""

    def __init__(self, name: str, units: dict[str, int], example: str) -> None:
        self.name = name
        self._units = units
        self._example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        written = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(value).lower())
        if written is None or written[2] not in self._units:
            self.fail(f"{value!r} is no {self.name}; write it like {self._example}", param, ctx)
        return int(float(written[1]) * self._units[written[2]]) if "." in written[1] else self._whole(written)

    def _whole(self, written: re.Match[str]) -> int:
        return int(written[1]) * self._units[written[2]]


SIZE = Quantity("size", BYTES, "500MB or 20GiB")
AGE = Quantity("age", SECONDS, "7d, 12h or 30min")


def size_text(nbytes: int) -> str:
    """Bytes for people."""
    size = float(nbytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def duration_text(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
