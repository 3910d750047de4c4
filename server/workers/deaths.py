"""Why a worker process ended, from what the system tells of it."""

import signal
from pathlib import Path

from server.workers.errors import Cause

VMSTAT = Path("/proc/vmstat")


def memory_kills(path: Path = VMSTAT) -> int:
    """How often the system killed a process for want of memory since it started; 0 where it does not tell."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, ValueError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def cause_of(code: int, kills: int) -> Cause:
    """Why a process ended that nobody had told to.

    Args:
        code: its exit code; negative, the signal that ended it.
        kills: how many processes the system has killed for want of memory shortly before.
    """
    if code >= 0:
        return Cause("exit", f"ended by itself with exit code {code}", exit_code=code)
    name = _signal_name(-code)
    if name == "SIGKILL" and kills:
        text = "was killed by the system, which had run out of memory"
        return Cause("out_of_memory", text, exit_code=code, signal=name)
    crashed = name in ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT")
    return Cause("signal", f"{'crashed' if crashed else 'was killed'} ({name})", exit_code=code, signal=name)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
