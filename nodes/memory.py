"""How much memory a device has and has left, and how much of it pictures need in an autoencoder."""

import ctypes
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch import device as Device

UNKNOWN = 8_000_000_000
"""Taken for the memory of a machine whose system does not tell."""
MEMINFO = Path("/proc/meminfo")
GROUP = Path("/sys/fs/cgroup")
M_ARENA_MAX = -8
"""As `malloc.h` has it."""


@dataclass(frozen=True, slots=True)
class Work:
    """What an autoencoder does, and the memory it needs for that at most.

    Measured with the autoencoder of Stable Diffusion (128 channels, fp32, a CPU), in bytes for each pixel of the
    picture: decoding 256, 512 and 768 pixels 4,726, 3,037 and 3,167; encoding 2,561, 2,552 and 2,560.
    """

    name: str
    planes: int
    """As many numbers of each channel of the first layer as are in memory at once, for each pixel."""

    def nbytes(self, pixels: int, channels: int, itemsize: int) -> int:
        """For one picture."""
        return self.planes * pixels * channels * itemsize


DECODING = Work("decoding", 9)
ENCODING = Work("encoding", 6)


def share_memory_between_threads() -> None:
    """Have what one thread gives back be had by others, before there are any.

    GNU's C library gives threads memory of their own, so that five pictures of Stable Diffusion 1.5 took 70 MiB more.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def budget(device: "Device") -> int:
    """Bytes that networks may take together: half the machine's memory, or four fifths of the GPU's."""
    if device.type == "cuda":
        import torch

        return cast(int, cast(Any, torch.cuda).get_device_properties(device).total_memory) * 4 // 5
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return UNKNOWN // 2


def room(device: "Device") -> int | None:
    """Bytes that are left on a device; None where nobody tells."""
    if device.type == "cuda":
        import torch

        cuda = cast(Any, torch.cuda)
        idle = cuda.memory_reserved(device) - cuda.memory_allocated(device)
        return cast(int, cuda.mem_get_info(device)[0] + idle)
    if device.type != "cpu":
        return None
    known = [left for left in (_of_machine(), _of_group()) if left is not None]
    return min(known, default=None)


def _of_machine() -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines() if ":" in line)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _of_group() -> int | None:
    """What is left of what a container may use."""
    try:
        return int((GROUP / "memory.max").read_text()) - int((GROUP / "memory.current").read_text())
    except (OSError, ValueError):  # there is no limit, or no such file
        return None
