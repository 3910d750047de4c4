"""What the command line was told for all of its commands, and how its errors reach a person."""

import json
import logging
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from graph.catalogue import Catalogue
    from graph.folders import Folders
    from graph.problems import Problem


@dataclass(frozen=True, slots=True)
class Settings:
    """The options before the command's name."""

    data: Path | None = None
    own_nodes: tuple[Path, ...] = ()
    verbosity: int = 0

    def folders(self, output: Path | None = None) -> "Folders":
        from nodes.engine import usual_folders

        return usual_folders(self.data, output)

    def catalogue(self, folders: "Folders") -> "Catalogue":
        from nodes.engine import full_catalogue

        # What somebody's own nodes print when they are imported is not this program's answer.
        with redirect_stdout(sys.stderr):
            return full_catalogue(folders, self.own_nodes)

    def log_to_stderr(self) -> None:
        """Let the project's log speak: warnings always, decisions with -v, everything with -vv."""
        level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(self.verbosity, 2)]
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger = logging.getLogger("latentloom")
        logger.handlers = [handler]
        logger.setLevel(level)


class WrongRequest(click.ClickException):
    """The workflow or the arguments are wrong: exit code 2, one message, no traceback."""

    exit_code = 2

    def __init__(self, message: str, problems: Sequence["Problem"] = (), as_json: bool = False) -> None:
        super().__init__(message)
        self.problems = tuple(problems)
        self.as_json = as_json

    def show(self, file: IO[Any] | None = None) -> None:
        """Say it to a person, and to a program that reads events as JSON."""
        if self.as_json:
            problems = [asdict(problem) for problem in self.problems]
            click.echo(json.dumps({"event": "refused", "message": self.message, "problems": problems}))
        super().show(file)


@contextmanager
def wrong_requests(as_json: bool = False) -> Generator[None]:
    """Turn whatever is wrong with a request into a message for the person who made it."""
    from graph.catalogue import DuplicateNode, OwnNodesError
    from graph.problems import InvalidWorkflow
    from server.overrides import WrongOverride
    from workflows.documents import UnreadableDocument

    try:
        yield
    except InvalidWorkflow as error:
        count = len(error.problems)
        heading = "this workflow cannot run:" if count == 1 else f"this workflow cannot run, for {count} reasons:"
        lines = "\n".join(f"  • {problem}" for problem in error.problems)
        raise WrongRequest(f"{heading}\n{lines}", error.problems, as_json) from error
    except (UnreadableDocument, OwnNodesError, DuplicateNode, WrongOverride) as error:
        raise WrongRequest(str(error), as_json=as_json) from error
