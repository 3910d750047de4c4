"""The workflow a run came from, so that what it saves can carry it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graph.values import Service


@dataclass(frozen=True)
class Documents(Service):
    """The API-format workflow (`prompt`) and whatever else is to stand in a picture's metadata (`workflow` …)."""

    prompt: Mapping[str, Any] = field(default_factory=dict[str, Any])
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def texts(self) -> dict[str, str]:
        """The metadata of a saved file: name → JSON in ASCII, which every reader of every chunk takes for the same."""
        named = {"prompt": self.prompt, **self.extra} if self.prompt else dict(self.extra)
        return {name: json.dumps(document) for name, document in named.items()}
