"""What the command line was told for all of its commands, and how its errors reach a person."""

import logging
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from graph.catalogue import Catalogue
    from graph.folders import Folders


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


@contextmanager
def wrong_requests() -> Generator[None]:
    """Turn whatever is wrong with a request into a message for the person who made it."""
    from graph.catalogue import DuplicateNode, OwnNodesError
    from graph.problems import InvalidWorkflow
    from workflows.documents import UnreadableDocument

    try:
        yield
    except InvalidWorkflow as error:
        count = len(error.problems)
        heading = "this workflow cannot run:" if count == 1 else f"this workflow cannot run, for {count} reasons:"
        lines = "\n".join(f"  • {problem}" for problem in error.problems)
        raise WrongRequest(f"{heading}\n{lines}") from error
    except (UnreadableDocument, OwnNodesError, DuplicateNode) as error:
        raise WrongRequest(str(error)) from error
