"""Where things are, said without telling anybody where that is on the server's disk: `input/a.png`."""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from graph.problems import Problem
from server.web.files.owner_folders import OwnerFolders
from server.workers.messages import Failure, JobEvent, JobResult, NodeFailed, NodeSkipped

ROOT = Path(__file__).resolve().parents[3]


class PlaceNames:
    """What the folders of an owner, and those of the installation, are called in sentences."""

    def __init__(self, folders: OwnerFolders) -> None:
        self._folders = folders

    @cached_property
    def _names(self) -> Mapping[str, str]:
        folders = self._folders
        places = {
            folders.output: "output",
            folders.uploads: "input",
            folders.temporary: "temp",
            folders.user: "user",
            folders.examples or ROOT / "workflows": "examples",
            folders.data / "models": "models",
            folders.data: "data",
            ROOT: "latentloom",
            Path(sys.prefix): "python",
            Path.home(): "~",
        }
        names: dict[str, str] = {}
        for path, name in places.items():
            for written in (str(path), os.path.abspath(path), os.path.realpath(path)):
                # A disk itself is no secret, and everything begins with it.
                if len(Path(written).parts) > 1:
                    names.setdefault(written, name)
        return names

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self._names, key=len, reverse=True)
        return re.compile(rf"(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])")

    def in_text(self, text: str) -> str:
        """A sentence with names in the place of paths."""
        return self._pattern.sub(lambda found: self._names[found[0]], text)

    def in_json(self, value: Any) -> Any:
        """The same for every text in a JSON value."""
        match value:
            case str():
                return self.in_text(value)
            case dict():
                return {name: self.in_json(each) for name, each in cast("dict[str, Any]", value).items()}
            case list():
                return [self.in_json(each) for each in cast("list[Any]", value)]
            case _:
                return value

    def in_event(self, event: JobEvent) -> JobEvent:
        """The same for what a worker says of a node."""
        match event:
            case NodeFailed():
                return replace(event, failure=self._in_failure(event.failure))
            case NodeSkipped(message=str() as message):
                return replace(event, message=self.in_text(message))
            case _:
                return event

    def in_result(self, result: JobResult) -> JobResult:
        """The same for what came of a job."""
        if not result.failures and not result.problems:
            return result
        return replace(
            result,
            failures=tuple(map(self._in_failure, result.failures)),
            problems=tuple(map(self._in_problem, result.problems)),
        )

    def _in_failure(self, failure: Failure) -> Failure:
        return replace(failure, message=self.in_text(failure.message), text=self.in_text(failure.text))

    def _in_problem(self, problem: Problem) -> Problem:
        return replace(problem, message=self.in_text(problem.message))
