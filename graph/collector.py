"""Python's cycle collector, out of the way of what makes many objects and leaves none behind."""

import gc
from collections.abc import Generator
from contextlib import contextmanager
from threading import Lock

_lock = Lock()
_paused = 0
_was_on = False


@contextmanager
def collector_paused() -> Generator[None, None, None]:
    """For large imports and for building large graphs.

    The collector looks through everything that is alive again and again while it grows, and finds nothing. Several
    threads may be in here at once; the collector goes on when the last has left.
    """
    global _paused, _was_on
    with _lock:
        if not _paused:
            _was_on = gc.isenabled()
            gc.disable()
        _paused += 1
    try:
        yield
    finally:
        with _lock:
            _paused -= 1
            if not _paused and _was_on:
                gc.enable()
