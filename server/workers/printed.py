"""What workers print: read on a thread, line by line, into the server's log.

Nodes print, libraries print, and a crash prints where it happened. Nobody who prints ever waits for long, and nobody
fills the log: beyond so many lines a second, lines are counted instead.
"""

import logging
import os
import time
from collections import deque
from collections.abc import Callable
from threading import Thread

log = logging.getLogger("latentloom.worker.output")

CHUNK = 64 * 1024
LONGEST_LINE = 4000
"""Bytes; the rest of a line is left out."""
MOST_PER_SECOND = 200
REMEMBERED = 40


class Printed:
    """Listens to the standard output and error of one worker until nobody can write there any more.

    Args:
        descriptor: the reading end of a pipe, which belongs to this from now on.
        worker: its name.
        job_id: tells which job it has.
    """

    def __init__(self, descriptor: int, worker: str, job_id: Callable[[], str | None]) -> None:
        self._descriptor = descriptor
        self._worker = worker
        self._job_id = job_id
        self._last: deque[str] = deque(maxlen=REMEMBERED)
        self._second = 0
        self._logged = 0
        self._left_out = 0
        Thread(target=self._listen, name=f"latentloom-output-{worker}", daemon=True).start()

    @property
    def last_line(self) -> str | None:
        """What it printed last, without what is empty."""
        return next((line for line in reversed(self._last) if line.strip()), None)

    def _listen(self) -> None:
        rest = b""
        while chunk := os.read(self._descriptor, CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._take(line)
            rest = rest[:LONGEST_LINE]
        if rest:
            self._take(rest)
        self._count_left_out()
        os.close(self._descriptor)

    def _take(self, line: bytes) -> None:
        second = int(time.monotonic())
        if second != self._second:
            self._count_left_out()
            self._second, self._logged = second, 0
        self._logged += 1
        if self._logged > MOST_PER_SECOND:
            self._left_out += 1
            return
        text = line[:LONGEST_LINE].decode(errors="backslashreplace").rstrip()
        self._last.append(text)
        self._log(text)

    def _count_left_out(self) -> None:
        if self._left_out:
            self._log(f"… {self._left_out:,} more lines in this second")
            self._left_out = 0

    def _log(self, text: str) -> None:
        log.info("%s: %s", self._worker, text, extra={"worker": self._worker, "job": self._job_id()})
