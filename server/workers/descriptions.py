"""What the nodes are, as workers describe them, remembered in the data folder.

A server that starts can so answer `/object_info` before any worker is ready. What is remembered counts only as long as
the code is the same: this program's, that of installed packages with nodes, and somebody's own nodes.
"""

import json
import logging
import os
import secrets
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

from graph.folders import Folders
from server.workers.options import WorkerOptions
from server.workers.process import ROOT

log = logging.getLogger("latentloom.workers")

PACKAGES = ("graph", "nodes")
"""Where nodes are declared and described."""


@dataclass(frozen=True)
class Description:
    """ComfyUI's `object_info`: a JSON object in UTF-8, an entry for each node."""

    content: bytes

    @cached_property
    def etag(self) -> str:
        """What tells it from others: 32 hexadecimal digits."""
        return blake2b(self.content, digest_size=16).hexdigest()

    @cached_property
    def nodes(self) -> dict[str, Any]:
        """Read. Takes about 10 ms per MB the first time."""
        return json.loads(self.content)


class Descriptions:
    """The description that was kept last in a data folder. All methods block, and raise nothing for what the disk does.

    Args:
        options: of the workers that are described.
    """

    def __init__(self, options: WorkerOptions) -> None:
        self._pickles = f"pickles: {options.allow_pickle}"
        self._own_nodes = (Folders.below(options.data).own_nodes, *options.own_nodes)
        self._path = options.data / "cache" / "object_info.json"

    def identity(self) -> str:
        """What the code of all nodes is now, going by names, sizes and times of files: hexadecimal digits."""
        hasher = blake2b(digest_size=16)
        for part in self._parts():
            hasher.update(part.encode(errors="surrogateescape") + b"\0")
        return hasher.hexdigest()

    def recall(self, identity: str) -> Description | None:
        """What was kept, if it was of this code."""
        try:
            first, content = self._path.read_bytes().split(b"\n", 1)
        except (OSError, ValueError):
            return None
        return Description(content) if first == identity.encode() and content.endswith(b"}") else None

    def keep(self, identity: str, description: Description) -> None:
        """Remember a description of this code in place of any other."""
        part = self._path.with_name(f".{secrets.token_hex(8)}.part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(identity.encode() + b"\n" + description.content)
            os.replace(part, self._path)
        except OSError as error:
            log.info("the description of the nodes cannot be kept: %s", error)
            with suppress(OSError):
                part.unlink()

    def _parts(self) -> Iterator[str]:
        yield sys.version
        yield version("pydantic")
        yield self._pickles
        for package in PACKAGES:
            yield from _files(sorted((ROOT / package).rglob("*.py")))
        for entry in sorted(entry_points(group="latentloom.nodes")):
            yield f"{entry.name} {entry.value} {entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
        for path in self._own_nodes:
            yield str(path)
            with suppress(OSError):
                yield from _files(sorted(path.glob("*.py")) if path.is_dir() else [path])


def _files(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        with suppress(OSError):
            stat = path.stat()
            yield f"{path} {stat.st_size} {stat.st_mtime_ns}"
