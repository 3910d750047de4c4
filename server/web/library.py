"""The nodes as the server knows them: enough to say what of a workflow can be run, without running anything."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from graph.catalogue import Catalogue
from server.web.files.owner_folders import OwnerFolders
from server.web.files.place_names import PlaceNames

LOOK_SECONDS = 2.0
"""Whether somebody's own nodes have changed is looked at no oftener than this."""


@dataclass(frozen=True)
class Shelf:
    """A catalogue, and the folders in which its nodes look for files."""

    catalogue: Catalogue
    folders: OwnerFolders

    def of(self, owner: str) -> "Shelf":
        """The same catalogue over the folders of an owner. To be called on the installation's own."""
        return replace(self, folders=self.folders.of(owner))

    @cached_property
    def names(self) -> PlaceNames:
        """What is said of these folders to people who need not know where they are."""
        return PlaceNames(self.folders)

    def with_own_choices(self, described: dict[str, Any]) -> dict[str, Any]:
        """A description with what can be chosen from in these folders. Looks at the disk."""
        return {name: self._with_own_choices(name, entry) for name, entry in described.items()}

    def _with_own_choices(self, name: str, entry: dict[str, Any]) -> dict[str, Any]:
        from graph.describe import node_info

        node = self.catalogue.get(name)
        chooses = node is not None and any(each.literal and each.literal.source for each in node.inputs.values())
        return entry | {"input": node_info(node, self.folders)["input"]} if node is not None and chooses else entry

    def describe(self) -> dict[str, Any]:
        """What `/object_info` says of the nodes, with what they can choose from now. Too slow for the event loop."""
        from graph.describe import object_info

        return object_info(self.catalogue, self.folders)


@dataclass
class Library:
    """Loads the catalogue beside the event loop, and again when somebody's own nodes have changed.

    Args:
        load: gives the catalogue; raises what is wrong with somebody's nodes.
        identity: tells what the nodes' code is now.
    """

    load: Callable[[], Shelf]
    identity: Callable[[], str]
    _shelf: Shelf | None = field(default=None, init=False)
    _known: str = field(default="", init=False)
    _looked: float = field(default=float("-inf"), init=False)
    _loading: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    @property
    def is_known(self) -> bool:
        """Whether a catalogue was loaded."""
        return self._shelf is not None

    async def shelf(self) -> Shelf:
        """The catalogue. Raises what loading it raises."""
        if self._shelf is not None and time.monotonic() - self._looked < LOOK_SECONDS:
            return self._shelf
        async with self._loading:
            if self._shelf is None or time.monotonic() - self._looked >= LOOK_SECONDS:
                await asyncio.to_thread(self._look)
        assert self._shelf is not None
        return self._shelf

    def _look(self) -> None:
        identity = self.identity()
        if self._shelf is None or identity != self._known:
            self._shelf, self._known = self.load(), identity
        self._looked = time.monotonic()
