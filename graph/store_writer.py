"""Writing to the disk store, on a thread of its own, so that computing never waits for the disk."""

import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from graph.codec import Codec, NoCodec
from graph.entry_file import Label
from graph.keys import Key
from graph.store import Outputs
from graph.store_folder import StoreFolder
from graph.store_keeper import StoreKeeper
from graph.values import size_of

log = logging.getLogger("latentloom.store")

MOST_BYTES = 256 * 1024**2
MOST_JOBS = 1024
BATCH = 64
CHEAP_SECONDS = 0.01
"""When the disk cannot keep up, results made in less than this are let go; whoever made dearer ones waits."""
REST_SECONDS = 60.0
"""How long nothing is written after the disk refused."""


@dataclass(frozen=True, slots=True)
class _Job:
    label: Label
    outputs: Outputs
    nbytes: int


class StoreWriter:
    """A bounded queue of results, and the thread that writes them. It starts with the first thing to do."""

    def __init__(self, folder: StoreFolder, max_bytes: int, codec: Codec) -> None:
        self.max_bytes = max_bytes
        self._folder = folder
        self._codec = codec
        self._keeper = StoreKeeper(folder, max_bytes)
        self._changed = threading.Condition()
        self._pending: dict[Key, _Job] = {}
        self._nbytes = 0
        self._at_work: dict[Key, _Job] = {}
        self._afterwards: defaultdict[Key, list[Callable[[], None]]] = defaultdict(list)
        self._uses: Counter[Key] = Counter()
        self._lost: list[Key] = []
        self._misses = 0
        self._flushing = 0
        self._busy = False
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._resting_until = 0.0
        self._warned = False
        self._refused: set[type] = set()

    # Any thread

    def put(self, key: Key, outputs: Outputs, class_name: str, seconds: float) -> None:
        """Have a result written. Waits only when the disk is far behind and the result is dear."""
        nbytes = size_of(outputs)
        if nbytes > self.max_bytes:
            return
        job = _Job(Label(key, class_name, max(seconds, 0.0), round(time.time(), 3)), outputs, nbytes)
        with self._changed:
            while self._behind(nbytes):
                if seconds < CHEAP_SECONDS:
                    return
                self._changed.wait()
            if self._stopping or time.monotonic() < self._resting_until:
                return
            if key not in self._pending:
                self._nbytes += nbytes
            self._pending[key] = job
            self._begin()
            self._changed.notify_all()

    def after(self, key: Key, action: Callable[[], None]) -> None:
        """Do something short once what waits under a key is written, or will not be; at once if nothing waits."""
        with self._changed:
            if key in self._pending or key in self._at_work:
                self._afterwards[key].append(action)
                return
        action()

    def waiting(self, key: Key) -> Outputs | None:
        """A result that is not on the disk yet."""
        # Without the lock, as every look-up does this: a job is always in one of the two until it is on the disk.
        job = self._pending.get(key) or self._at_work.get(key)
        return job.outputs if job is not None else None

    def used(self, key: Key) -> None:
        """Note that an entry was used."""
        with self._changed:
            self._uses[key] += 1

    def missed(self) -> None:
        with self._changed:
            self._misses += 1

    def lost(self, key: Key) -> None:
        """Note that an entry turned out to be damaged and is gone."""
        with self._changed:
            self._lost.append(key)

    def flush(self) -> None:
        """Wait until everything so far is written and noted."""
        with self._changed:
            if not self._alive() and not self._anything():
                return
            if threading.current_thread() is self._thread:  # the store is collected in the middle of its own work
                return
            self._begin()
            self._flushing += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._anything() and not self._busy or not self._alive())
            self._flushing -= 1

    def close(self) -> None:
        """Write what is left, and end the thread."""
        self.flush()
        with self._changed:
            self._stopping = True
            thread = self._thread
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _behind(self, nbytes: int) -> bool:
        full = len(self._pending) >= MOST_JOBS or (self._pending and self._nbytes + nbytes > MOST_BYTES)
        return bool(full) and not self._stopping and time.monotonic() >= self._resting_until

    def _anything(self) -> bool:
        return bool(self._pending or self._uses or self._lost or self._misses)

    def _alive(self) -> bool:
        """Whether there is a thread; a fork leaves it behind."""
        return self._thread is not None and self._thread.is_alive()

    def _begin(self) -> None:
        if not self._alive() and not self._stopping:
            self._thread = threading.Thread(target=self._work, name="latentloom store", daemon=True)
            self._thread.start()

    # The thread

    def _work(self) -> None:
        try:
            while self._next():
                self._write_batch()
        finally:
            self._keeper.close()
            with self._changed:
                self._thread = None
                self._changed.notify_all()
            self._settle(list(self._afterwards))

    def _next(self) -> bool:
        """Wait for something to do, and take it. False when all is done."""
        self._settle(list(self._at_work))  # what was not written after all
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._pending or self._stopping or (self._flushing and self._anything()),
            )
            for key in list(self._pending)[:BATCH]:
                self._at_work[key] = self._pending[key]
                self._nbytes -= self._pending.pop(key).nbytes
            self._busy = self._anything() or bool(self._at_work)
            return self._busy

    def _write_batch(self) -> None:
        with self._changed:
            uses, lost, misses = self._uses, self._lost, self._misses
            self._uses, self._lost, self._misses = Counter(), [], 0
        if time.monotonic() < self._resting_until:
            return
        try:
            self._keeper.open()
            written = [entry for job in list(self._at_work.values()) if (entry := self._write(job)) is not None]
            self._keeper.record(written, uses, misses, lost)
            if written:
                self._keeper.tidy()
        except Exception as error:  # of the disk or of SQLite; whatever it is, it must not end the thread, nor the run
            self._rest(error)

    def _write(self, job: _Job) -> tuple[Label, int] | None:
        try:
            nbytes = self._folder.write(job.label, self._codec.encode(job.outputs))
        except NoCodec as error:
            if error.kind not in self._refused:
                self._refused.add(error.kind)
                log.info("%s; results with it are kept in memory alone", error)
            return None
        finally:
            self._settle([job.label.key])
        return job.label, nbytes

    def _settle(self, keys: list[Key]) -> None:
        """Let go of results that are written or will not be, and do what was to be done after that."""
        for key in keys:
            with self._changed:
                self._at_work.pop(key, None)
                actions = self._afterwards.pop(key, []) if key not in self._pending else []
            for action in actions:
                action()

    def _rest(self, error: Exception) -> None:
        self._keeper.close()
        self._resting_until = time.monotonic() + REST_SECONDS
        if not self._warned:
            self._warned = True
            log.warning("results are not kept on disk for now, the run goes on: %s (%s)", error, self._folder.root)
