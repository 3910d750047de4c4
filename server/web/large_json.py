"""JSON read in pieces: while one is read no other thread can do anything, and the event loop is one of them."""

import json
import re
from collections.abc import Callable, Sequence
from json.decoder import JSONDecodeError
from typing import Any, NoReturn

PIECES = (1 << 10, 1 << 13, 1 << 16)
"""Characters that are tried for an object or a list, one after the other; what is longer is taken apart."""
DEEPEST = 200
"""How deep objects and lists longer than that may be nested."""

_decoding: Any = json.decoder
_scanstring: Callable[[str, int, bool], tuple[str, int]] = _decoding.scanstring
_space = re.compile(r"[ \t\n\r]*")


def read_json(body: bytes, pieces: Sequence[int] = PIECES) -> Any:
    """What a body says in JSON, as `json.loads` would read it, but for NaN and infinities, which JSON does not have.

    Raises:
        ValueError: it is none. RecursionError: it is nested too deeply.
    """
    text = body.decode(json.detect_encoding(body), "surrogatepass")
    if len(text) <= pieces[-1]:
        return json.loads(text, parse_constant=_refuse)
    reader = _Reader(text, pieces)
    value, end = reader.value(reader.skip(0), 0)
    end = reader.skip(end)
    if end != len(text):
        raise JSONDecodeError("Extra data", text, end)
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it contains {constant}, which JSON does not have")


class _Reader:
    def __init__(self, text: str, pieces: Sequence[int]) -> None:
        self._text = text
        self._pieces = pieces
        decoder: Any = json.JSONDecoder(parse_constant=_refuse)
        self._scan: Callable[[str, int], tuple[Any, int]] = decoder.scan_once

    def skip(self, at: int) -> int:
        """Past white space."""
        found = _space.match(self._text, at)
        return found.end() if found else at

    def value(self, at: int, depth: int) -> tuple[Any, int]:
        """What begins there, and where it ends."""
        first = self._text[at : at + 1]
        if first not in ("{", "["):
            try:
                return self._scan(self._text, at)
            except StopIteration as error:
                raise JSONDecodeError("Expecting value", self._text, error.value) from None
        for size in self._pieces:
            try:
                value, end = self._scan(self._text[at : at + size], 0)
            except (JSONDecodeError, StopIteration):
                continue  # it is longer, or it is wrong, which will be found when it is taken apart
            return value, at + end
        if depth >= DEEPEST:
            raise RecursionError
        return self._object(at + 1, depth) if first == "{" else self._list(at + 1, depth)

    def _object(self, at: int, depth: int) -> tuple[dict[str, Any], int]:
        made: dict[str, Any] = {}
        at = self.skip(at)
        if self._text[at : at + 1] == "}":
            return made, at + 1
        while True:
            if self._text[at : at + 1] != '"':
                raise JSONDecodeError("Expecting property name enclosed in double quotes", self._text, at)
            name, at = _scanstring(self._text, at + 1, True)
            at = self.skip(at)
            if self._text[at : at + 1] != ":":
                raise JSONDecodeError("Expecting ':' delimiter", self._text, at)
            made[name], at = self.value(self.skip(at + 1), depth + 1)
            more, at = self._goes_on(at, "}")
            if not more:
                return made, at

    def _list(self, at: int, depth: int) -> tuple[list[Any], int]:
        made: list[Any] = []
        at = self.skip(at)
        if self._text[at : at + 1] == "]":
            return made, at + 1
        while True:
            value, at = self.value(at, depth + 1)
            made.append(value)
            more, at = self._goes_on(at, "]")
            if not more:
                return made, at

    def _goes_on(self, at: int, end: str) -> tuple[bool, int]:
        """Whether another one follows, and where."""
        at = self.skip(at)
        found = self._text[at : at + 1]
        if found == end:
            return False, at + 1
        if found != ",":
            raise JSONDecodeError("Expecting ',' delimiter", self._text, at)
        return True, self.skip(at + 1)
