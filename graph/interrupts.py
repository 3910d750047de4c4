"""Ctrl-C, while the books are kept: it takes effect in a node or while waiting, never halfway through an entry."""

import signal
from collections.abc import Generator
from contextlib import contextmanager
from threading import current_thread, get_ident, main_thread
from types import FrameType


class _Admitted:
    """A block in which an interrupt takes effect at once. Anywhere else than in the thread it comes to, no more."""

    def __init__(self) -> None:
        self.thread = 0
        """The thread that holds interrupts off, if any."""
        self.now = False
        self.pending = False

    def __enter__(self) -> None:
        if self.thread == get_ident():
            self.now = True
            if self.pending:
                self.now = self.pending = False
                raise KeyboardInterrupt

    def __exit__(self, *_: object) -> None:
        if self.thread == get_ident():
            self.now = False


admitted = _Admitted()


def _interrupt(signum: int, frame: FrameType | None) -> None:
    # Who asks twice does not want to wait for the end of anything.
    if admitted.now or admitted.pending:
        admitted.now = admitted.pending = False
        raise KeyboardInterrupt
    admitted.pending = True


@contextmanager
def held_off() -> Generator[None]:
    """Have interrupts wait for an `admitted` block, or for the end of this one.

    That is for the main thread, which is where Python raises them, and for its usual way of doing so: a program that
    handles SIGINT itself decides for itself.
    """
    if current_thread() is not main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    if handler is _interrupt:  # a run inside a node
        now, admitted.now = admitted.now, False
        try:
            yield
        finally:
            admitted.now = now
        return
    if handler is not signal.default_int_handler:
        yield
        return
    admitted.thread, admitted.now, admitted.pending = get_ident(), False, False
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        admitted.thread = 0
        if signal.getsignal(signal.SIGINT) is _interrupt:  # a node may have set its own
            signal.signal(signal.SIGINT, handler)
        pending, admitted.pending = admitted.pending, False
        if pending:
            raise KeyboardInterrupt
