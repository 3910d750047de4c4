"""Names that come from outside become paths inside a folder, or are refused."""

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from server.web.problems import Refused

LONGEST_PART = 255
LONGEST_NAME = 1000
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# Streams and drives of Windows, and what cannot be in a name there.
UNPORTABLE = re.compile(r'[:*?"<>|]')
# Names that Windows takes for devices, with whatever suffix, in whatever folder.
DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)


def parts_of(name: str, new: bool = False) -> tuple[str, ...]:
    """The parts of a relative name; both slashes divide. Refuses what could lead out of a folder.

    Args:
        new: whether the file is to be made, so that the name has to be one on every system.
    """
    if len(name) > LONGEST_NAME:
        raise Refused(400, f"the name has {len(name)} letters; {LONGEST_NAME} are the most")
    if name.startswith(("/", "\\")):
        raise Refused(403, f"{name!r} leads out of the folder: it begins at the root of a disk")
    parts = tuple(part for part in re.split(r"[/\\]", name) if part not in ("", "."))
    for part in parts:
        _judge(part, portable=new or os.name == "nt")
    return parts


def _judge(part: str, portable: bool) -> None:
    if part == "..":
        raise Refused(403, "'..' leads out of the folder; name a file inside it")
    if CONTROL.search(part):
        raise Refused(400, f"{part!r} cannot be a file's name: it holds a control character")
    if portable and UNPORTABLE.search(part):
        raise Refused(400, f"{part!r} cannot be a file's name on every system: leave out : * ? \" < > |")
    if portable and (DEVICES.fullmatch(part) or part.endswith((".", " "))):
        raise Refused(400, f"{part!r} cannot be a file's name: some systems take it for something else")
    try:
        length = len(part.encode())
    except UnicodeEncodeError:
        raise Refused(400, f"{part!r} cannot be a file's name: it is no Unicode text") from None
    if length > LONGEST_PART:
        raise Refused(400, f"a file's name may have {LONGEST_PART} bytes; this one has {length}")


def inside(folder: Path, *names: str, new: bool = False, follow: bool = False) -> Path:
    """The path of a name below a folder, which need not exist. Looks at the disk.

    Args:
        new: whether the file is to be made.
        follow: whether links that somebody has put into the folder may lead out of it.
    """
    path = folder.joinpath(*(part for name in names for part in parts_of(name, new)))
    if not follow and not _stays_inside(folder, path):
        raise Refused(403, "a link on the way leads out of the folder")
    return path


def _stays_inside(folder: Path, path: Path) -> bool:
    """Whether that is so with every link followed. Links in the path of the folder itself are its owner's business."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def is_file(path: Path) -> bool:
    """Whether it is an ordinary file: reading a pipe or a device may never end."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def found(folders: Iterable[Path], *names: str, follow: bool = False) -> Path | None:
    """The first ordinary file of this name. Looks at the disk."""
    paths = (inside(folder, *names, follow=follow) for folder in folders)
    return next((path for path in paths if is_file(path)), None)
