"""Read a workflow document from a file, from standard input, from a PNG that carries one, or by an example's name."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graph.problems import InvalidWorkflow, Problem, nearest
from graph.workflow import Workflow, parse

EXAMPLES = Path(__file__).resolve().parent
LARGEST_DOCUMENT = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Document:
    """A workflow and the editor's own form of it, if that came along."""

    workflow: Workflow
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


class UnreadableDocument(ValueError):
    """A workflow could not be read from where it should be."""

    def __init__(self, source: str, reason: str) -> None:
        self.source = source
        super().__init__(f"{source}: {reason}")


def read_document(source: str) -> Document:
    """The document at a path, in a PNG, on standard input (`-`), or of a bundled example (`text_to_image`).

    Raises UnreadableDocument, or InvalidWorkflow when it was read but is no workflow.
    """
    if source == "-":
        return Document(parse(sys.stdin.buffer.read()))
    path = _found(source)
    try:
        with path.open("rb") as file:
            start = file.read(8)
            if start == b"\x89PNG\r\n\x1a\n":
                return _from_png(path)
            if path.stat().st_size > LARGEST_DOCUMENT:
                raise UnreadableDocument(source, "this file is too large to be a workflow")
            return Document(parse(start + file.read()))
    except IsADirectoryError as error:
        raise UnreadableDocument(source, "this is a folder, not a workflow file") from error
    except OSError as error:
        raise UnreadableDocument(source, error.strerror or str(error)) from error


def examples() -> list[str]:
    """The names of the bundled example workflows."""
    return sorted(path.stem for path in EXAMPLES.glob("*.json"))


def _found(source: str) -> Path:
    path = Path(source)
    if path.exists():
        return path
    example = EXAMPLES / f"{source.removesuffix('.json')}.json"
    if example.parent == EXAMPLES and example.is_file():
        return example
    hint = nearest(source, examples()) or f"bundled examples: {', '.join(examples())}"
    raise UnreadableDocument(source, f"there is no such file ({hint})")


def _from_png(path: Path) -> Document:
    from nodes.picture_files import read_png_text

    texts = read_png_text(path)
    if "prompt" not in texts:
        found = "it holds only the editor's own form of one" if "workflow" in texts else "its metadata holds none"
        raise UnreadableDocument(str(path), f"this PNG carries no workflow that can be run ({found})")
    extra: dict[str, Any] = {}
    if "workflow" in texts:
        try:
            extra["workflow"] = json.loads(texts["workflow"])
        except json.JSONDecodeError as error:
            problem = Problem("not_a_workflow", f"the “workflow” text of this PNG is not JSON: {error}")
            raise InvalidWorkflow([problem]) from error
    return Document(parse(texts["prompt"]), extra)
