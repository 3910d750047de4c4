"""Files that a text mentions: their content stands in the key beside the text itself."""

from collections.abc import Sequence
from pathlib import Path

from graph.folders import Folders
from graph.identity import content_identity, digest, encode
from graph.literals import LiteralType


def with_mentions(literal: LiteralType | None, folders: Folders, text: object) -> str | None:
    """A text with the identity of the files that it mentions; None where it mentions none."""
    if literal is None or literal.mentions is None or not isinstance(text, str):
        return None
    found = _identity(literal.mentions.mentioned(folders, text))
    return found and f"{text}:{found}"


def possible_mentions(literal: LiteralType | None, folders: Folders) -> str | None:
    """The identity of all files that a text may mention which comes by a link; None where there are none."""
    if literal is None or literal.mentions is None:
        return None
    return _identity(literal.mentions.all(folders))


def _identity(files: Sequence[Path]) -> str | None:
    try:
        return digest(b"mentions", *(encode(content_identity(path)) for path in files)).hex() if files else None
    except OSError:  # gone in between: the node that needs it says so
        return None
