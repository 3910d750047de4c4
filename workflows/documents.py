"""Read a workflow from a file, standard input, a picture that carries one, or by an example's name.

It may be in API-format or in an editor's own, which is told by its shape; the latter is converted.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from graph.problems import InvalidWorkflow, Problem, nearest
from graph.workflow import Workflow, parse, read
from workflows.editor.shapes import is_editor_document
from workflows.pictures import UnreadablePicture, is_picture, picture_texts

if TYPE_CHECKING:
    # Documents in API-format need none of it, and are to be read at once.
    from workflows.editor.descriptions import NodeInfos

EXAMPLES = Path(__file__).resolve().parent
LARGEST_DOCUMENT = 256 * 1024 * 1024
LONGEST_NAME = 200
"""Longer ones are cut in messages."""


Form = Literal["api", "editor"]
Describe = Callable[[], "NodeInfos"]
"""Gives `object_info`; called when a document is in the editor's format, which cannot be read without."""


@dataclass(frozen=True, slots=True)
class Document:
    """A workflow, the form it was read in, and what else came along: the editor's own form, as `workflow`."""

    workflow: Workflow
    extra: dict[str, Any] = field(default_factory=dict[str, Any])
    form: Form = "api"
    warnings: tuple[str, ...] = ()


class UnreadableDocument(ValueError):
    """A workflow could not be read from where it should be."""

    def __init__(self, source: str, reason: str) -> None:
        self.source = source
        shown = source if len(source) <= LONGEST_NAME else f"{source[:LONGEST_NAME]}…"
        super().__init__(f"{shown}: {reason}")


def read_document(source: str, describe: Describe) -> Document:
    """The document at a path, in a picture, on standard input (`-`), or of a bundled example (`text_to_image`).

    Raises UnreadableDocument, or InvalidWorkflow when it was read but is no workflow.
    """
    return document_in(_content(source), describe, source)


def document_in(content: bytes, describe: Describe, source: str = "this file") -> Document:
    """The document in a file's content: JSON, or a picture that carries some. Raises as `read_document` does."""
    return _in_picture(content, describe, source) if is_picture(content) else _in_json(content, describe)


def document_of(document: object, describe: Describe) -> Document:
    """The document in parsed JSON of either format, or in an object that holds it as `prompt`."""
    inner = cast("dict[str, object]", document).get("prompt") if isinstance(document, dict) else None
    form = inner if is_editor_document(inner) else cast(object, document)
    if not is_editor_document(form):
        return Document(read(form))
    from workflows.editor.api_form import to_api

    converted = to_api(form, describe())
    return Document(read(converted.document), {"workflow": form}, "editor", converted.warnings)


def carried(document: Document, workflow: Workflow, describe: Describe) -> dict[str, Any]:
    """What saved files are to carry beside a workflow read from this document: the editor's form of it, as `workflow`.

    Literals that were changed since are changed in it too; where there was none, or where that is not enough, the
    workflow is drawn anew.
    """
    from workflows.editor.editor_form import to_editor
    from workflows.editor.edits import with_literals

    form = document.extra.get("workflow")
    changes = {node_id: new for node_id in workflow if (new := _changed(document.workflow, workflow, node_id))}
    if is_editor_document(form) and not changes:
        return document.extra
    try:
        edited = with_literals(form, changes, describe()) if is_editor_document(form) else None
        return {**document.extra, "workflow": edited or to_editor(workflow, describe())}
    except InvalidWorkflow:  # it runs all the same: an editor is only of less use afterwards
        return document.extra


def _changed(before: Workflow, after: Workflow, node_id: str) -> dict[str, Any]:
    old, new = before[node_id].inputs, after[node_id].inputs
    return {name: value for name, value in new.items() if name not in old or old[name] != value}


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


def _in_json(text: str | bytes, describe: Describe) -> Document:
    try:
        document: object = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return Document(parse(text))  # which says what is wrong with it
    return document_of(document, describe)


def _in_picture(content: bytes, describe: Describe, source: str) -> Document:
    """What ran (`prompt`), with the editor's form of it if that is there too; or whichever of the two there is."""
    try:
        texts = picture_texts(content)
    except UnreadablePicture as error:
        raise UnreadableDocument(source, str(error)) from error
    if "prompt" not in texts:
        if "workflow" not in texts:
            raise UnreadableDocument(source, "this picture carries no workflow (its metadata holds none)")
        return _in_json(texts["workflow"], describe)
    document = _in_json(_as_sent(texts["prompt"]), describe)
    if "workflow" not in texts:
        return document
    try:
        return replace(document, extra={"workflow": json.loads(texts["workflow"])})
    except (ValueError, RecursionError) as error:
        problem = Problem("not_a_workflow", f"the “workflow” text of this picture is not JSON: {error}")
        raise InvalidWorkflow([problem]) from error


def _as_sent(prompt: str) -> str:
    """A prompt without what ComfyUI's server wrote into it: `is_changed`, which may be NaN and so is no JSON."""
    try:
        document: object = json.loads(prompt)
        if not isinstance(document, dict):
            return prompt
        nodes = cast("dict[str, object]", document)
        for used in nodes.values():
            if isinstance(used, dict):
                cast("dict[str, object]", used).pop("is_changed", None)
        return json.dumps(nodes)
    except (ValueError, RecursionError):
        return prompt  # reading it says what is wrong with it


def _refuse_constant(name: str) -> None:
    raise ValueError(name)
