"""The event loop on which async nodes of all runs of an executor overlap."""

import asyncio
from collections.abc import Callable, Coroutine
from threading import Lock, Thread
from typing import Any

Done = Callable[[object, BaseException | None], None]
"""Is told what a coroutine returned, or what it raised."""


class Awaited:
    """A coroutine that is under way."""

    def __init__(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, object], done: Done) -> None:
        self._loop = loop
        self._coroutine = coroutine
        self._done = done
        self._task: asyncio.Task[tuple[object, BaseException | None]] | None = None
        self._cancelled = False

    def cancel(self) -> None:
        """Have it cancelled, from any thread; `done` is told as ever."""
        self._loop.call_soon_threadsafe(self._cancel)

    def start(self) -> None:
        """Begin, on the loop's thread."""
        self._task = self._loop.create_task(self._run())
        self._task.add_done_callback(self._ended)
        if self._cancelled:
            self._task.cancel()

    def _cancel(self) -> None:
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> tuple[object, BaseException | None]:
        try:
            return await self._coroutine, None
        except BaseException as error:  # also what would end the loop for all others
            return None, error

    def _ended(self, task: "asyncio.Task[tuple[object, BaseException | None]]") -> None:
        if task.cancelled():  # before it had begun
            self._coroutine.close()
            self._done(None, asyncio.CancelledError())
        else:
            self._done(*task.result())


class EventLoop:
    """A loop on a thread of its own, made when the first coroutine comes: most executors need none."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None

    def submit(self, coroutine: Coroutine[Any, Any, object], done: Done) -> Awaited:
        """Begin a coroutine. `done` is called on the loop's thread."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = Thread(target=_keep_going, args=(self._loop,), name="latentloom-async", daemon=True)
                self._thread.start()
            loop = self._loop
        awaited = Awaited(loop, coroutine, done)
        loop.call_soon_threadsafe(awaited.start)
        return awaited

    def close(self) -> None:
        """Stop the loop. Nothing may be under way any more."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()


def _keep_going(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
