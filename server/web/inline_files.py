"""Pictures that come along with a workflow, for the nodes that name them: kept like uploads, under their content.

`photo.png` becomes `inline/<digest>/photo.png` in the owner's input folder, so two pictures of one name never meet, the
same picture is kept once, and a job that waits or is tried again finds its own.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from graph.catalogue import Catalogue
from graph.workflow import Workflow
from server.web.files.names import inside, parts_of
from server.web.files.owner_folders import OwnerFolders
from server.web.files.pictures import opened
from server.web.files.staging import StagedFile
from server.web.problems import Refused

FOLDER = "inline"
MOST_FILES = 64
_DATA_URL = re.compile(r"data:[^,;]*(?:;[^,;]*)*;base64,", re.IGNORECASE)
_SPACE = re.compile(r"\s+")


def decoded(files: Mapping[str, str]) -> Mapping[str, bytes]:
    """Files that stand in JSON: base64, alone or as a `data:` URL."""
    return {name: _decoded(name, text) for name, text in files.items()}


def _decoded(name: str, text: str) -> bytes:
    start = _DATA_URL.match(text)
    plain = _SPACE.sub("", text[start.end() if start else 0 :]).translate(_STANDARD).rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        expected = "base64, alone or after data:image/png;base64,"
        raise Refused(400, f"files[{name!r}] has to be a picture in {expected} and is not: {error}") from error


# The two letters that some write otherwise in URLs.
_STANDARD = str.maketrans("-_", "+/")


def keep(files: Mapping[str, bytes | StagedFile], folders: OwnerFolders, most_pixels: int) -> Mapping[str, str]:
    """Keep pictures in the input folder. Returns the names they have there by those they were sent with.

    Looks at the disk. Refuses what is no picture, has too many pixels, or has a name that cannot be.
    """
    if len(files) > MOST_FILES:
        raise Refused(413, f"{len(files)} files came with one workflow; {MOST_FILES} are the most")
    with ExitStack() as stack:
        staged = {name: _staged(content, folders, stack) for name, content in files.items()}
        for name, file in staged.items():
            _check(name, file, most_pixels)
        return {name: _publish(name, file, folders) for name, file in staged.items()}


def _staged(content: bytes | StagedFile, folders: OwnerFolders, stack: ExitStack) -> StagedFile:
    if isinstance(content, StagedFile):
        return content
    staged = StagedFile.new(folders.temp)
    stack.callback(staged.discard)
    staged.append(content)
    return staged


def _check(name: str, file: StagedFile, most_pixels: int) -> None:
    parts = parts_of(name, new=True)
    if len(parts) != 1 or parts[0] != name or name.startswith("."):
        raise Refused(400, f"files: {name[:80]!r} has to be a plain name such as photo.png")
    try:
        with opened(file.path, most_pixels):
            pass
    except Refused as refused:
        raise Refused(refused.status, f"files[{name!r}]: {refused.message}") from refused


def _publish(name: str, file: StagedFile, folders: OwnerFolders) -> str:
    place = f"{FOLDER}/{file.digest[:32]}"
    # Whoever has the name already has the same content.
    file.publish(inside(folders.uploads, place, name, new=True), overwrite=False)
    return f"{place}/{name}"


def with_names(workflow: Workflow, catalogue: Catalogue, names: Mapping[str, str]) -> tuple[Workflow, frozenset[str]]:
    """A workflow whose nodes name files as they are called in the input folder, and which of them it does name."""
    if not names:
        return workflow, frozenset()
    used = set[str]()
    changed: Workflow = {}
    for node_id, step in workflow.items():
        node = catalogue.get(step.class_type)
        inputs = dict(step.inputs)
        for name, value in step.inputs.items():
            declared = node.inputs.get(name) if node is not None else None
            if isinstance(value, str) and value in names and declared is not None and _is_file(declared.literal):
                inputs[name] = names[value]
                used.add(value)
        changed[node_id] = step if inputs == step.inputs else step.model_copy(update={"inputs": inputs})
    return changed, frozenset(used)


def _is_file(literal: Any) -> bool:
    return literal is not None and literal.source is not None


def refuse_unused(names: Iterable[str], used: Iterable[str]) -> None:
    """Refuse files that no node names: most likely a name is misspelt."""
    left = sorted(set(names).difference(used))
    if left:
        advice = "give a node that reads pictures, such as LoadImage, that name as its image"
        raise Refused(400, f"files: no node names {', '.join(map(repr, left))}; {advice}")
