"""Questions to a worker, beside its jobs, and its answers."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from server.workers.errors import RequestRefused
from server.workers.messages import Describe, Described, Free, Freed, Inspect, Inspected, Refused

Question = Describe | Free | Inspect
Answer = Described | Freed | Inspected | Refused

A = TypeVar("A", bound=Answer)


class Requests:
    """What one worker was asked and has not answered yet.

    Args:
        say: says something to the worker.
    """

    def __init__(self, say: Callable[[Question], None]) -> None:
        self._say = say
        self._last = 0
        self._open: dict[int, asyncio.Future[Answer]] = {}
        self._ended: Exception | None = None

    async def ask(self, make: Callable[[int], Question], kind: type[A]) -> A:
        """Ask, and wait for an answer of this kind. Raises RequestRefused, or what `end` was given.

        Args:
            make: makes the question from its number.
        """
        if self._ended is not None:
            raise self._ended
        self._last += 1
        number, answer = self._last, asyncio.get_running_loop().create_future()
        self._open[number] = answer
        try:
            self._say(make(number))
            message = await answer
        finally:
            del self._open[number]
        if isinstance(message, Refused):
            raise RequestRefused(message.message)
        assert isinstance(message, kind)
        return message

    def answer(self, message: Answer) -> None:
        """Take in an answer."""
        waiting = self._open.get(message.request)
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    def end(self, error: Exception) -> None:
        """There will be no more answers."""
        self._ended = error
        for waiting in self._open.values():
            if not waiting.done():
                waiting.set_exception(error)
