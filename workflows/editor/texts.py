"""What an editor does to texts before it sends them: choices are made, comments go, names of files are filled in."""

import re
from collections.abc import Callable
from datetime import datetime
from random import Random

_TOKENS = re.compile(r"\\[{|}]|[{|}]|[^\\{|}]+|\\")
_COMMENT = re.compile(r"//|/\*")
_SPECIAL = re.compile(r"[{}]|(?<=\\)\||(?<=/)[/*]")
_VARIABLE = re.compile(r"%([^%]+)%")
_DATE_PART = re.compile(r"yyyy|yy|d{1,2}|M{1,2}|h{1,2}|m{1,2}|s{1,2}")
_NOT_IN_FILE_NAMES = re.compile(r'[/?<>\\:*|"\x00-\x1f\x7f]')

Option = list["str | Option"]


def spoken(text: str, random: Random) -> str:
    r"""A prompt without its comments (`//`, `/* */`), and one picked of each `{red|blue|{dark|light} green}`.

    `\{`, `\|` and `\}` stand for themselves; so does a brace without its other half.
    """
    outermost: Option = []
    groups: list[list[Option]] = [[outermost]]
    for token in _TOKENS.findall(_without_comments(text)):
        inside = len(groups) > 1
        if token == "{":
            groups.append([[]])
        elif token == "|" and inside:
            groups[-1].append([])
        elif token == "}" and inside:
            options = groups.pop()
            groups[-1][-1].append(random.choice(options))
        else:
            groups[-1][-1].append(token[1:] if len(token) == 2 and token[0] == "\\" else token)
    while len(groups) > 1:
        first, *others = groups.pop()
        groups[-1][-1] += ["{", first, *(part for option in others for part in ("|", option))]
    return _joined(outermost)


def unspoken(text: str) -> str:
    """What to write in an editor so that `spoken` says this text: braces escaped, comment signs as single choices."""
    return _SPECIAL.sub(lambda found: f"{{{found[0]}}}" if found[0] in "/*" else f"\\{found[0]}", text)


def file_prefix(text: str, now: datetime, widget: Callable[[str, str], object]) -> str:
    """A file's prefix with `%date:yyyy-MM-dd%` and `%KSampler.seed%` filled in; other variables are the server's.

    Args:
        widget: the value of a node's widget, given the name of the node and its own; None if there is none.
    """

    def fill(found: re.Match[str]) -> str:
        variable = found[1]
        if variable.startswith("date:"):
            return _DATE_PART.sub(lambda part: _date_part(part[0], now), variable.removeprefix("date:"))
        node, dot, name = variable.partition(".")
        value = widget(node, name) if dot else None
        return found[0] if value is None else _NOT_IN_FILE_NAMES.sub("_", _as_text(value))

    return _VARIABLE.sub(fill, text)


def _without_comments(text: str) -> str:
    kept: list[str] = []
    at = 0
    while comment := _COMMENT.search(text, at):
        kept.append(text[at : comment.start()])
        end = text.find("\n", comment.end()) if comment[0] == "//" else text.find("*/", comment.end())
        if end < 0 and comment[0] == "/*":
            # Never closed, so it is none; nor is any other after it.
            rest = text[comment.start() :]
            return "".join(kept) + re.sub(r"//.*", "", rest)
        if end < 0:
            return "".join(kept)
        at = end if comment[0] == "//" else end + 2
    return "".join(kept) + text[at:]


def _joined(pieces: Option) -> str:
    """The texts of nested lists, in order, however deep they are nested."""
    texts: list[str] = []
    waiting: Option = [pieces]
    while waiting:
        piece = waiting.pop()
        if isinstance(piece, str):
            texts.append(piece)
        else:
            waiting += reversed(piece)
    return "".join(texts)


def _date_part(part: str, now: datetime) -> str:
    if part[0] == "y":
        return f"{now.year:04}"[-len(part) :]
    number = {"d": now.day, "M": now.month, "h": now.hour, "m": now.minute, "s": now.second}[part[0]]
    return f"{number:0{len(part)}}"


def _as_text(value: object) -> str:
    """As JavaScript writes values: true, 8 and not 8.0."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
