"""The event loop on which async nodes of a run overlap.

Each run has its own: a node that blocks its loop blocks no other run, and whatever nodes have left on it ends with it.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from threading import Lock, Thread
from typing import Any

CHECK_SECONDS = 0.05
CLOSE_SECONDS = 1.0
"""How long the end of a run waits for what nodes have left on its loop."""

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
        with suppress(RuntimeError):  # the loop is closed: it has ended
            self._loop.call_soon_threadsafe(self._cancel)

    def start(self, context: Context) -> None:
        """Begin, on the loop's thread."""
        self._task = self._loop.create_task(self._run(), context=context)
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
    """A loop on a thread of its own, made when the first coroutine comes: most runs need none.

    Args:
        begin: is called once on every thread that this makes.
        look: is called every now and then while there is a loop: somebody may have cancelled the run.
    """

    def __init__(self, begin: Callable[[], None], look: Callable[[], None]) -> None:
        self._begin = begin
        self._look = look
        self._lock = Lock()
        self._current: asyncio.AbstractEventLoop | None = None
        self._threads: dict[asyncio.AbstractEventLoop, Thread] = {}
        self._blocked = False
        """Whether a coroutine was given up, which may mean that it does not let its loop go on."""
        self._closed = False

    def submit(self, coroutine: Coroutine[Any, Any, object], done: Done, context: Context) -> Awaited | None:
        """Begin a coroutine. `done` is called on the loop's thread. None if it is too late."""
        with self._lock:
            if self._closed:
                coroutine.close()
                return None
            if self._current is None:
                self._current = self._started()
            awaited = Awaited(self._current, coroutine, done)
            self._current.call_soon_threadsafe(awaited.start, context)
            return awaited

    def give_up(self, awaited: Awaited) -> None:
        """Do not count on a coroutine to end: what comes later gets another loop."""
        awaited.cancel()
        with self._lock:
            self._current, self._blocked = None, True

    def close(self) -> None:
        """Cancel whatever is left."""
        with self._lock:
            self._closed = True
        for loop, thread in self._threads.items():
            loop.call_soon_threadsafe(loop.stop)
            if not self._blocked:
                thread.join(CLOSE_SECONDS)

    def _started(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        loop.call_soon(self._tick, loop)
        thread = Thread(target=self._keep_going, args=(loop,), name="latentloom async", daemon=True)
        self._threads[loop] = thread
        thread.start()
        return loop

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._look()
        loop.call_later(CHECK_SECONDS, self._tick, loop)

    def _keep_going(self, loop: asyncio.AbstractEventLoop) -> None:
        self._begin()
        _insist(loop.run_forever)
        _insist(lambda: loop.run_until_complete(_wind_up()))
        loop.close()


def _insist(go_on: Callable[[], None]) -> None:
    while True:
        try:
            return go_on()
        except (SystemExit, KeyboardInterrupt):  # of a task that a node has left behind
            continue


async def _wind_up() -> None:
    """Cancel what is left on a loop, also what was only about to begin."""
    await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
