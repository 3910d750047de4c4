"""Which folders an owner's files are in: nobody reads or writes in those of another."""

import re
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Literal

from graph.folders import Folders

LOCAL = "local"
"""The owner of the installation's own folders: whoever started the server, and everybody while it asks for no keys."""

Kind = Literal["input", "output", "temp"]
KINDS: tuple[Kind, ...] = ("input", "output", "temp")

_PLAIN = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_TAKEN = re.compile(r"default|.*-[0-9a-f]{16}")


@dataclass(frozen=True, kw_only=True)
class OwnerFolders(Folders):
    """The folders of one owner. Models, results and nodes are everybody's.

    Args:
        uploads: the owner's input files.
        temporary: what is not meant to be kept.
        users: holds a folder for the settings and files of every owner.
        user: the one of this owner.
    """

    uploads: Path
    temporary: Path
    users: Path
    user: Path

    @property
    def temp(self) -> Path:
        return self.temporary

    @property
    def inputs(self) -> tuple[Path, ...]:
        return (self.uploads, *([self.examples] if self.examples else []))

    def read_from(self, kind: Kind) -> tuple[Path, ...]:
        """Where files of a kind are looked for, in order."""
        return self.inputs if kind == "input" else (self.write_to(kind),)

    def write_to(self, kind: Kind) -> Path:
        """Where new files of a kind go."""
        return {"input": self.uploads, "output": self.output, "temp": self.temporary}[kind]

    def of(self, owner: str) -> "OwnerFolders":
        """The folders of another owner. To be called on the installation's own."""
        if owner == LOCAL:
            return self
        name = folder_name(owner)
        home = self.data / "owners" / name
        return replace(
            self,
            output=home / "output",
            uploads=home / "input",
            temporary=home / "temp",
            user=self.users / name,
        )


def installation_folders(
    data: Path,
    *,
    output: Path | None = None,
    inputs: Path | None = None,
    temp: Path | None = None,
    users: Path | None = None,
    examples: Path | None = None,
) -> OwnerFolders:
    """The folders of an installation: the usual ones in its data folder where nothing else is said."""
    users = users or data / "user"
    return OwnerFolders(
        data=data,
        output=output or data / "output",
        examples=examples,
        uploads=inputs or data / "input",
        temporary=temp or data / "temp",
        users=users,
        user=users / "default",
    )


def folder_name(owner: str) -> str:
    """A name for a folder: of every owner another one, also where letters' case does not count."""
    if _PLAIN.fullmatch(owner) and not _TAKEN.fullmatch(owner):
        return owner
    readable = re.sub(r"[^a-z0-9]+", "-", owner.lower())[:20].strip("-") or "owner"
    return f"{readable}-{sha256(owner.encode(errors='surrogatepass')).hexdigest()[:16]}"
