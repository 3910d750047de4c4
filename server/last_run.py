"""What the last run in a data folder was made of, so that the next one can be compared with it."""

import os
import secrets

from pydantic import ValidationError

from graph.explain import GraphRecord
from graph.folders import Folders


def remember(folders: Folders, record: GraphRecord) -> None:
    """Keep the record of a run that begins. A folder that cannot be written to only forgets."""
    path = folders.data / "last_run.json"
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(record.model_dump_json(), encoding="utf-8")
        os.replace(temporary, path)
    except (OSError, ValueError):  # also text that no encoding holds
        temporary.unlink(missing_ok=True)


def recall(folders: Folders) -> GraphRecord | None:
    """The record of the last run, if there is one that can be read."""
    try:
        return GraphRecord.model_validate_json((folders.data / "last_run.json").read_bytes())
    except (OSError, ValidationError):
        return None
