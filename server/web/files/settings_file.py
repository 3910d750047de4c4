"""An owner's settings: a JSON object in a file, which is never lost, even if it cannot be read."""

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pydantic_core import from_json

from server.web.answers import json_bytes
from server.web.files.staging import claim, write_whole
from server.web.problems import Refused

LOGGER = logging.getLogger("latentloom.web")

NAME = "comfy.settings.json"
LARGEST = 4 * 1024 * 1024
MOST_KEPT_ASIDE = 1000

# One change after the other: each reads what the one before it has written.
_changing = threading.Lock()


def read_settings(folder: Path) -> dict[str, Any]:
    """What is set. A file that cannot be read counts as empty, and stays where it is. For threads."""
    return _read(folder / NAME) or {}


def change_settings(folder: Path, changes: Mapping[str, Any]) -> None:
    """Set some. A file that could not be read is kept aside. For threads."""
    path = folder / NAME
    with _changing:
        before = _read(path)
        data = json_bytes({**(before or {}), **changes})
        if len(data) > LARGEST:
            raise Refused(413, f"settings may have {LARGEST:,} bytes in all; these would have {len(data):,}")
        if before is None:
            _keep_aside(path)
        write_whole(path, data)


def _read(path: Path) -> dict[str, Any] | None:
    """None: there is something that is no settings."""
    try:
        settings: object = from_json(path.read_bytes(), allow_inf_nan=False)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        LOGGER.warning("%s cannot be read, and counts as empty: %s", path, error)
        return None
    return cast("dict[str, Any]", settings) if isinstance(settings, dict) else None


def _keep_aside(path: Path) -> None:
    for number in range(1, MOST_KEPT_ASIDE):
        aside = path.with_name(f"{path.stem}.unreadable-{number}.json")
        if claim(path, aside):
            LOGGER.warning("what was in %s is in %s now", path, aside.name)
            return
    raise Refused(503, "too many unreadable settings have been kept aside; remove some of them")
