"""Pictures of work in progress: a node offers one, and it is drawn only if somebody watches."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from graph.values import Service


@dataclass(frozen=True, slots=True)
class Delivery:
    """The bytes of a PNG or JPEG file that a node reports with its progress: its result, of which none is left out."""

    data: bytes


class Preview(Service):
    """Takes pictures of where a node is. Results never depend on it, so it is no part of a key.

    Args:
        take: receives each picture, on the thread of the node. None: nobody watches, and nothing is ever drawn.
    """

    def __init__(self, take: Callable[[Any], None] | None = None) -> None:
        self._take = take

    def preview(self, draw: Callable[[], Any]) -> None:
        """Offer the picture that `draw` makes. It should be quick: the node waits for it."""
        if self._take is not None:
            self._take(draw())
