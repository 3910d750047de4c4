"""An owner's own files: workflows of editors, and whatever else they keep. For threads."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Literal

from pydantic import BaseModel

from server.web.files.names import inside, is_file, parts_of
from server.web.files.staging import StagedFile, claim
from server.web.problems import Refused


class FileInfo(BaseModel):
    """A file. Times are seconds since 1970."""

    path: str
    size: int
    modified: float
    created: float


class Entry(BaseModel):
    """A file, or a folder."""

    name: str
    path: str
    type: Literal["directory", "file"]
    size: int | None = None
    modified: float | None = None


def info(path: Path, root: Path) -> FileInfo:
    """What is known of a file, which is named by its path below `root`."""
    state = path.stat()
    name = path.relative_to(root).as_posix()
    return FileInfo(path=name, size=state.st_size, modified=state.st_mtime, created=state.st_ctime)


def folder_at(root: Path, name: str) -> Path:
    """A folder that has to be there."""
    folder = inside(root, name)
    if not folder.is_dir():
        raise Refused(404, f"there is no folder {name!r}")
    return folder


def file_at(root: Path, name: str) -> Path:
    """A file that has to be there."""
    path = inside(root, name)
    if not is_file(path):
        raise Refused(404, f"there is no file {name!r}")
    return path


def new_place(root: Path, name: str) -> Path:
    """Where a file of this name would be."""
    if not parts_of(name, new=True):
        raise Refused(400, "the file has no name")
    path = inside(root, name, new=True)
    if path.is_dir():
        raise Refused(409, f"{name!r} is a folder")
    return path


def files(folder: Path, recurse: bool) -> list[Path]:
    """The files in a folder, or below it, in the order of their names; hidden ones are left out."""
    return sorted(path for path, is_folder in _walk(folder, recurse) if not is_folder)


def entries(root: Path, folder: Path) -> list[Entry]:
    """Everything below a folder: of each folder first its folders, then its files."""
    found = sorted(_walk(folder, True), key=lambda each: _order(each[0].relative_to(folder), each[1]))
    return [_entry(root, path, is_folder) for path, is_folder in found]


def _order(path: PurePath, is_folder: bool) -> list[tuple[bool, str]]:
    """Where it stands in a list: the parts of its path, of which every one but the last is a folder."""
    *around, name = path.parts
    return [*((False, part) for part in around), (not is_folder, name)]


def _entry(root: Path, path: Path, is_folder: bool) -> Entry:
    name = path.relative_to(root).as_posix()
    if is_folder:
        return Entry(name=path.name, path=name, type="directory")
    state = path.stat()
    return Entry(name=path.name, path=name, type="file", size=state.st_size, modified=state.st_mtime)


def _walk(folder: Path, recurse: bool) -> Iterator[tuple[Path, bool]]:
    """Folders and files with whether they are folders. Links are left out: they may lead anywhere."""
    pending = [folder]
    while pending:
        for entry in os.scandir(pending.pop()):
            if entry.name.startswith("."):
                continue
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                yield path, True
                if recurse:
                    pending.append(path)
            elif entry.is_file(follow_symlinks=False):
                yield path, False


def keep(staged: StagedFile, path: Path, overwrite: bool) -> None:
    """Give a file that has arrived its place."""
    if not staged.publish(path, overwrite):
        raise _in_use(path)


def move(source: Path, target: Path, overwrite: bool) -> None:
    """Give a file another name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if overwrite:
        os.replace(source, target)
    elif source == target or not claim(source, target):
        raise _in_use(target)


def _in_use(path: Path) -> Refused:
    return Refused(409, f"there is a file {path.name!r} already; say overwrite=true to have it replaced")
