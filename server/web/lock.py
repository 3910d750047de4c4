"""Decide at the start whether the door is locked, and with which keys."""

from pathlib import Path
from typing import NamedTuple

from server.web.access import Door
from server.web.files.owner_folders import LOCAL
from server.web.keys import KeyRing, StatedKey, StatedKeys, StoredKey, stored_key
from server.web.options import WebOptions


class Locked(NamedTuple):
    """The door, and the key in the data folder if it is one that opens it."""

    door: Door
    stored: StoredKey | None = None


def lock(options: WebOptions, data: Path, ring: KeyRing | None = None, ring_has_keys: bool = False) -> Locked:
    """The door of a server. Looks at the disk.

    Without any keys it stands open for programs on this machine. As soon as others can come, a key is asked for: if
    nobody has stated or made one, there will be one in the data folder.

    Args:
        ring: knows keys that were made for people, such as those in the database.
        ring_has_keys: whether it knows any now.

    Raises:
        OSError, ValueError: the key in the data folder cannot be read or made.
    """
    if options.insecure_no_auth:
        return Locked(Door(requests=options.request_rate))
    stated = list(options.api_key)
    stored: StoredKey | None = None
    if not stated and not ring_has_keys:
        if options.is_local:
            return Locked(Door(requests=options.request_rate))
        stored = stored_key(data)
        stated = [StatedKey.parse(f"{LOCAL}={stored.text}")]
    rings: list[KeyRing] = [StatedKeys(stated)] if stated else []
    if ring is not None:
        rings.append(ring)
    return Locked(Door(rings=tuple(rings), requests=options.request_rate), stored)
