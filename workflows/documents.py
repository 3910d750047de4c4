"""Read a workflow document from a file, from standard input, from a PNG that carries one, or by an example's name."""

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from graph.problems import InvalidWorkflow, Problem, nearest
from graph.workflow import Workflow, parse
from nodes.picture_files import PNG_SIGNATURE, png_texts

EXAMPLES = Path(__file__).resolve().parent
LARGEST_DOCUMENT = 256 * 1024 * 1024
LONGEST_NAME = 200
"""Longer ones are cut in messages."""


@dataclass(frozen=True, slots=True)
class Document:
    """A workflow and the editor's own form of it, if that came along."""

    workflow: Workflow
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


class UnreadableDocument(ValueError):
    """A workflow could not be read from where it should be."""

    def __init__(self, source: str, reason: str) -> None:
        self.source = source
        shown = source if len(source) <= LONGEST_NAME else f"{source[:LONGEST_NAME]}…"
        super().__init__(f"{shown}: {reason}")


def read_document(source: str) -> Document:
    """The document at a path, in a PNG, on standard input (`-`), or of a bundled example (`text_to_image`).

    Raises UnreadableDocument, or InvalidWorkflow when it was read but is no workflow.
    """
    content = _content(source)
    return _from_png(source, content) if content.startswith(PNG_SIGNATURE) else Document(parse(content))


def _content(source: str) -> bytes:
    """What is there, up to a bound: devices and pipes may never end."""
    try:
        if source == "-":
            content = sys.stdin.buffer.read(LARGEST_DOCUMENT + 1)
        else:
            with _found(source).open("rb") as file:
                content = file.read(LARGEST_DOCUMENT + 1)
    except IsADirectoryError as error:
        raise UnreadableDocument(source, "this is a folder, not a workflow file") from error
    except OSError as error:
        raise UnreadableDocument(source, error.strerror or str(error)) from error
    if len(content) > LARGEST_DOCUMENT:
        raise UnreadableDocument(source, "this file is too large to be a workflow")
    return content


def examples() -> list[str]:
    """The names of the bundled example workflows."""
    return sorted(path.stem for path in EXAMPLES.glob("*.json"))


def _found(source: str) -> Path:
    """The file; a folder that happens to have an example's name does not hide the example."""
    path = Path(source)
    if os.path.exists(path) and not path.is_dir():
        return path
    example = EXAMPLES / f"{source.removesuffix('.json')}.json"
    if example.parent == EXAMPLES and os.path.isfile(example):
        return example
    if os.path.exists(path):
        return path
    if source.lstrip().startswith("{"):
        raise UnreadableDocument(source, "this is a workflow itself; give the name of a file, or pipe it in and give -")
    hint = nearest(source, examples()) or f"bundled examples: {', '.join(examples())}"
    raise UnreadableDocument(source, f"there is no such file ({hint})")


def _from_png(source: str, content: bytes) -> Document:
    texts = png_texts(content)
    if "prompt" not in texts:
        found = "it holds only the editor's own form of one" if "workflow" in texts else "its metadata holds none"
        raise UnreadableDocument(source, f"this PNG carries no workflow that can be run ({found})")
    extra: dict[str, Any] = {}
    if "workflow" in texts:
        try:
            extra["workflow"] = json.loads(texts["workflow"])
        except (ValueError, RecursionError) as error:
            problem = Problem("not_a_workflow", f"the “workflow” text of this PNG is not JSON: {error}")
            raise InvalidWorkflow([problem]) from error
    return Document(parse(_as_sent(texts["prompt"])), extra)


def _as_sent(prompt: str) -> str:
    """A prompt without what ComfyUI's server wrote into it: `is_changed`, which may be NaN and so is no JSON."""
    try:
        document: object = json.loads(prompt)
    except (ValueError, RecursionError):
        return prompt  # parse says what is wrong with it
    if not isinstance(document, dict):
        return prompt
    nodes = cast("dict[str, object]", document)
    for used in nodes.values():
        if isinstance(used, dict):
            cast("dict[str, object]", used).pop("is_changed", None)
    return json.dumps(nodes)
