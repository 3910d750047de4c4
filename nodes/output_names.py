"""Name output files as ComfyUI does, and write them so that no reader ever sees half of one."""

import errno
import os
import secrets
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import NamedTuple

from nodes.file_errors import OutputError
from nodes.model_errors import ModelError


class OutputPlace(NamedTuple):
    """Where files go: the folder, its path below the output folder ("" at the top), and how their names begin."""

    folder: Path
    subfolder: str
    prefix: str


def place_output(
    output: Path, filename_prefix: str, width: int = 0, height: int = 0, now: datetime | None = None
) -> OutputPlace:
    """Fill in the variables of a prefix and split off its folder. OutputError if that leaves the output folder."""
    filled = os.path.normpath(fill_in(filename_prefix, width, height, now or datetime.now()) or "ComfyUI")
    subfolder, prefix = os.path.split(filled)
    root = os.path.abspath(output)
    folder = os.path.abspath(os.path.join(root, subfolder))
    if prefix in (os.curdir, os.pardir, "") or os.path.commonpath((root, folder)) != root:
        raise OutputError(
            Path(filled), f"files are only saved inside {root}. Use a filename_prefix that stays in there."
        )
    return OutputPlace(Path(folder), subfolder, prefix)


def fill_in(prefix: str, width: int, height: int, now: datetime) -> str:
    """Replace %width%, %height% and the parts of the time; %batch_num% is known later."""
    values = {"width": f"{width}", "height": f"{height}", "year": f"{now.year}"}
    values |= {part: f"{getattr(now, part):02}" for part in ("month", "day", "hour", "minute", "second")}
    for name, value in values.items():
        prefix = prefix.replace(f"%{name}%", value)
    return prefix


def fill_in_batch_number(prefix: str, number: int) -> str:
    """Replace %batch_num% by the picture's index in its batch."""
    return prefix.replace("%batch_num%", str(number))


def next_number(folder: Path, prefix: str) -> int:
    """1 + the highest N of the files `<prefix>_<N>_…` in the folder; 1 where there is none yet."""
    start = os.path.normcase(f"{prefix}_")
    try:
        with os.scandir(folder) as entries:
            return 1 + max((_number(entry.name, start) for entry in entries), default=0)
    except FileNotFoundError:
        return 1
    except (OSError, ValueError) as error:
        raise _output_error(folder, error) from error


def _number(name: str, start: str) -> int:
    """The N of `<prefix>_<N>_…`, else 0."""
    if not os.path.normcase(name).startswith(start):
        return 0
    digits = name[len(start) :].split("_")[0]
    return int(digits) if digits.isdecimal() else 0


def write_atomically(
    folder: Path, prefix: str, suffix: str, data: bytes | Iterable[bytes], first: int | None = None
) -> Path:
    """Write `<prefix>_<N:05>_<suffix>` under the next free N, whole or not at all, and return its path.

    Nothing is ever overwritten, also when several processes save at once. Without `first`, the number to try first,
    the folder is counted: whoever saves a batch counts once and then counts up. Raises OutputError.
    """
    numbers = count(next_number(folder, prefix) if first is None else first)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _temporary(folder, data) as temporary:
            candidates = (folder / f"{prefix}_{number:05}_{suffix}" for number in numbers)
            return next(path for path in candidates if _claim(temporary, path))
    except ModelError:  # what was to be written could not be read
        raise
    except (OSError, ValueError) as error:
        raise _output_error(folder, error) from error


def write_as(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a file of this very name, whole or not at all. Raises OutputError, also where the name is taken."""
    try:
        with _temporary(path.parent, data) as temporary:
            if not _claim(temporary, path):
                raise OutputError(path, "there is such a file already, and nothing is overwritten")
    except (ModelError, OutputError):
        raise
    except (OSError, ValueError) as error:
        raise _output_error(path.parent, error) from error


@contextmanager
def _temporary(folder: Path, data: bytes | Iterable[bytes]) -> Generator[Path, None, None]:
    """A hidden file with the data safely on disk; gone afterwards, whatever happened."""
    path = folder / f".{secrets.token_hex(8)}.part"
    try:
        # Not tempfile: its files are readable by their owner only, and this one becomes the output.
        with path.open("xb") as file:
            file.writelines((data,) if isinstance(data, bytes) else data)
            file.flush()
            os.fsync(file.fileno())
        yield path
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _claim(temporary: Path, path: Path) -> bool:
    """Give the complete file its final name, unless that name is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        return _claim_without_links(temporary, path)
    return True


NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}


def _claim_without_links(temporary: Path, path: Path) -> bool:
    """The same on file systems such as exFAT: a hidden file says who may rename to this name."""
    right = path.with_name(f".{path.name}.claim")
    try:
        right.open("xb").close()
    except FileExistsError:
        return False
    try:
        if os.path.lexists(path):
            return False
        temporary.rename(path)
        return True
    finally:
        right.unlink(missing_ok=True)


def _output_error(folder: Path, error: OSError | ValueError) -> OutputError:
    if isinstance(error, OSError):
        return OutputError(folder, ADVICE.get(error.errno, f"{error.strerror}. Choose another output folder."))
    return OutputError(folder, f"the name cannot be used ({error}). Change filename_prefix.")


_UNWRITABLE = "the folder may not be written to. Change its permissions, or choose another output folder."
_NOT_A_FOLDER = "a file is in the way where the folder should be. Move it, or choose another output folder."
_FULL = "the disk is full. Free some space, or choose an output folder on another disk. Nothing was left behind."

ADVICE: dict[int | None, str] = {
    errno.EACCES: _UNWRITABLE,
    errno.EPERM: _UNWRITABLE,
    errno.EROFS: _UNWRITABLE,
    errno.ENOTDIR: _NOT_A_FOLDER,
    errno.EEXIST: _NOT_A_FOLDER,
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.ENAMETOOLONG: "the name is too long. Shorten filename_prefix.",
}
