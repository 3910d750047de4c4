"""How much memory a process holds, and how it gives some back to the system."""

import ctypes
import gc
import os
import sys
from contextlib import suppress


def resident_bytes() -> int | None:
    """The memory this process holds, files it has mapped included; None where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, AttributeError, ValueError, IndexError):
        return None


def give_back() -> None:
    """Return what is free to the system, where it is not done of itself."""
    gc.collect()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library than GNU's
            ctypes.CDLL(None).malloc_trim(0)


def be_killed_first() -> None:
    """If memory runs out, the system shall end this process before the one that started it."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")
