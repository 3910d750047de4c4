"""Waiting for the coroutines of async nodes from code that is not async."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from graph.cancellation import Cancellation

CHECK_SECONDS = 0.05
"""How often a waiting coroutine is asked whether it has been cancelled."""

_Outcome = tuple[object, SystemExit | None]


class Waiting:
    """The event loop of one run. It is made when the first coroutine comes: most runs need none."""

    def __init__(self, cancellation: Cancellation) -> None:
        self._cancellation = cancellation
        self._resources = ExitStack()
        self._complete: Callable[[Coroutine[Any, Any, _Outcome]], _Outcome] | None = None

    def __enter__(self) -> "Waiting":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._resources.close()

    def result(self, coroutine: Coroutine[Any, Any, object]) -> object:
        """What a coroutine returns. Raises Cancelled, also while it waits."""
        if self._complete is None:
            self._complete = self._started()
        returned, exited = self._complete(self._cancellable(coroutine))
        if exited is not None:
            raise exited
        return returned

    def _started(self) -> Callable[[Coroutine[Any, Any, _Outcome]], _Outcome]:
        runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        if not _inside_event_loop():
            return self._resources.enter_context(runner).run
        # Called by a coroutine, as in a notebook: its thread has a loop already, so ours gets a thread of its own.
        thread = self._resources.enter_context(ThreadPoolExecutor(1))
        self._resources.callback(lambda: thread.submit(runner.close).result())
        return lambda coroutine: thread.submit(runner.run, coroutine).result()

    async def _cancellable(self, coroutine: Coroutine[Any, Any, object]) -> _Outcome:
        task = asyncio.ensure_future(_outcome(coroutine))
        while not (await asyncio.wait({task}, timeout=CHECK_SECONDS))[0]:
            if self._cancellation.requested:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                self._cancellation.check()
        return task.result()


async def _outcome(coroutine: Coroutine[Any, Any, object]) -> _Outcome:
    """The result of a coroutine; SystemExit is handed out, as it would break the event loop."""
    try:
        return await coroutine, None
    except SystemExit as error:
        return None, error


def _inside_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
