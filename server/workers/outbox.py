"""What a worker has to say, and the thread that says it, with a sign of life now and then.

Nodes never wait for the socket, unless the server falls far behind. Of progress only the latest is kept until it is
sent, a few times a second, so that a node may report as often as it likes. The signs of life come from this thread: a
node that computes does not hinder it, one that holds Python's lock silences it.
"""

import os
import time
import traceback
from collections import deque
from collections.abc import Callable
from threading import Condition, Thread, current_thread

from server.workers.messages import FROM_WORKER, Alive, FromWorker

MOST_WAITING = 10_000
"""Messages above which those who have more to say wait."""
MOST_IN_FRAME = 128
"""Messages: few enough for the server to take them in within about a millisecond."""
GATHER_SECONDS = 0.004
"""For how long events are gathered before they are sent together."""
CRASHED = 70

Later = Callable[[], FromWorker]
"""Makes a message when its time has come."""


class Outbox:
    """Messages on their way. Safe to use from several threads.

    Args:
        send: takes a frame, and may take its time; raises OSError when nobody is there any more.
        alive: makes a sign of life.
        heartbeat: seconds between two of them.
        tick: seconds between two reports of the same progress.
    """

    def __init__(self, send: Callable[[bytes], None], alive: Callable[[], Alive], heartbeat: float, tick: float):
        self._send = send
        self._alive = alive
        self._heartbeat = heartbeat
        self._tick = tick
        self._changed = Condition()
        self._waiting: deque[FromWorker | Later] = deque()
        self._latest: dict[str, Later] = {}
        """Progress that has not been told, by what it is the progress of."""
        self._urgent = False
        self._asleep = False
        self._sending = False
        self._deaf = False
        """Nobody is there any more."""
        self._thread = Thread(target=self._speak, name="latentloom-outbox", daemon=True)
        self._thread.start()

    def put(self, message: FromWorker) -> None:
        """Say something at once."""
        self._add(message, urgent=True)

    def tell(self, message: FromWorker) -> None:
        """Say something soon. Waits when very much is to be said."""
        self._add(message, urgent=False)

    def replace(self, slot: str, make: Later) -> None:
        """Say this soon, unless something else comes for the same slot before."""
        with self._changed:
            self._latest[slot] = make
            self._wake()

    def settle(self, slot: str) -> None:
        """Say what stands in a slot before anything that comes from now on."""
        with self._changed:
            make = self._latest.pop(slot, None)
            if make is not None:
                self._waiting.append(make)

    def forget(self) -> None:
        """Empty all slots."""
        with self._changed:
            self._latest.clear()

    def flush(self, seconds: float) -> bool:
        """Wait until everything is said, for so long at most. Whether it is."""
        with self._changed:
            self._urgent = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._deaf or not (self._waiting or self._sending), seconds)

    def _add(self, message: FromWorker, urgent: bool) -> None:
        with self._changed:
            if current_thread() is not self._thread:  # which alone makes room
                self._changed.wait_for(lambda: len(self._waiting) < MOST_WAITING or self._deaf)
            if self._deaf:
                return
            self._waiting.append(message)
            self._urgent = self._urgent or urgent
            self._wake()

    def _wake(self) -> None:
        # A thread that is only gathering is left alone: it wakes by itself before long.
        if self._asleep or self._urgent:
            self._changed.notify_all()

    def _speak(self) -> None:
        try:
            self._keep_speaking()
        except OSError:
            with self._changed:
                self._deaf = True
                self._waiting.clear()
                self._changed.notify_all()
        except BaseException:  # a worker that cannot speak is of no use, and must not look alive
            traceback.print_exc()
            os._exit(CRASHED)

    def _keep_speaking(self) -> None:
        beat_at = tick_at = time.monotonic()
        while True:
            with self._changed:
                self._sending = False
                self._changed.notify_all()
                self._sleep(beat_at, tick_at)
                now = time.monotonic()
                if self._latest and now >= tick_at:
                    self._waiting += self._latest.values()
                    self._latest.clear()
                    tick_at = now + self._tick
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_IN_FRAME))]
                self._urgent = self._urgent and bool(self._waiting)
                self._sending = True
            messages = [make() if callable(make) else make for make in batch]
            if now >= beat_at:
                messages.append(self._alive())
                beat_at = now + self._heartbeat
            if messages:
                self._send(FROM_WORKER.frame(messages))

    def _sleep(self, beat_at: float, tick_at: float) -> None:
        """Wait until there is something to say."""
        while True:
            if self._urgent and self._waiting:
                return
            now = time.monotonic()
            if self._waiting:
                # More of it is coming, as a rule, and one frame for all is less work on both sides.
                self._changed.wait_for(lambda: self._urgent or len(self._waiting) >= MOST_IN_FRAME, GATHER_SECONDS)
                return
            due = min(beat_at, tick_at) if self._latest else beat_at
            if now >= due:
                return
            self._asleep = True
            self._changed.wait(due - now)
            self._asleep = False
