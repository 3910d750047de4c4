"""How much memory this machine has."""

import os
import re
from contextlib import suppress
from pathlib import Path

MEMINFO = Path("/proc/meminfo")


def whole_memory() -> int:
    """Bytes in all; 0 where nobody tells."""
    return _linux("MemTotal") or _pages("SC_PHYS_PAGES")


def free_memory() -> int:
    """Bytes that programs could have; 0 where nobody tells."""
    return _linux("MemAvailable") or _pages("SC_AVPHYS_PAGES")


def _linux(name: str) -> int:
    with suppress(OSError):
        found = re.search(rf"^{name}:\s+(\d+) kB", MEMINFO.read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else 0
    return 0


def _pages(name: str) -> int:
    # Not every system tells, and Windows has no such function at all.
    sysconf = getattr(os, "sysconf", None)
    with suppress(OSError, ValueError):
        return max(0, sysconf(name) * sysconf("SC_PAGE_SIZE")) if sysconf else 0
    return 0
