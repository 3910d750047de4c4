"""Writing to the disk store, on a thread of its own, while computing goes on.

What a kill may lose is bounded: a result that was dear to make is queued only when the dear one before it is in its
place, and whoever made it gives it half a hundredth of the time that took to get there. Mostly that is plenty, and then
nothing is lost that was finished. Files come first; when there is none to write, the index is told of them, and they
are made safe from power cuts.
"""

import logging
import threading
import time
from collections import Counter, defaultdict, deque
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
"""So many files at most the index has not heard of,"""
NOTE_SECONDS = 0.1
"""and for so long."""
CHEAP_SECONDS = 0.002
"""When the disk cannot keep up, results made in less than this are let go; whoever made dearer ones waits."""
SHARE = 0.005
"""The part of its own time that a dear result may take longer, so that it is in its place before the next is begun."""
SYNC_ABOVE = 0.05
"""Seconds above which a result is worth making safe from a power cut,"""
SYNC_SHARE = 0.05
"""and the part of its time that this thread may spend on it while a run goes on."""
SYNC_MOST = 64
REST_SECONDS = 60.0
"""How long nothing is written after the disk refused."""


@dataclass(frozen=True, slots=True)
class _Job:
    label: Label
    outputs: Outputs
    nbytes: int

    @property
    def dear(self) -> bool:
        return self.label.seconds >= CHEAP_SECONDS


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
        self._dear: set[Key] = set()
        """Of what is pending or at work."""
        self._written: list[tuple[Label, int]] = []
        """What the index has not heard of, since `_written_since`."""
        self._written_since = 0.0
        self._unsynced: deque[Key] = deque(maxlen=SYNC_MOST)
        self._sync_at = 0.0
        self._uses: Counter[Key] = Counter()
        self._lost: list[Key] = []
        self._misses = 0
        self._asked = False
        """Whether somebody waits for the index to be told."""
        self._noting = False
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._resting_until = 0.0
        self._warned = False
        self._refused: set[type] = set()

    # Any thread

    def put(self, key: Key, outputs: Outputs, class_name: str, seconds: float) -> None:
        """Have a result written. If it is dear, this waits while the disk is behind, and a moment for the result."""
        nbytes = size_of(outputs)
        if nbytes > self.max_bytes:
            return
        job = _Job(Label(key, class_name, max(seconds, 0.0), round(time.time(), 3)), outputs, nbytes)
        with self._changed:
            while self._behind(job):
                if not job.dear:
                    return
                self._changed.wait()
            if self._stopping or self._resting():
                return
            if key not in self._pending:
                self._nbytes += nbytes
            self._pending[key] = job
            self._begin()
            self._changed.notify_all()
            if job.dear:
                self._dear.add(key)
                self._changed.wait_for(lambda: key not in self._dear, timeout=seconds * SHARE)

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

    def flush(self, uses: bool = False) -> None:
        """Wait until every result so far is written, and in the index.

        Args:
            uses: wait also until the index knows what was used, which else it learns soon.
        """
        with self._changed:
            if not self._anything() or threading.current_thread() is self._thread:  # collected amid its own work
                return
            self._begin()
            self._asked = True
            self._changed.notify_all()
            left = self._anything if uses else self._any_results
            self._changed.wait_for(lambda: not left() or not self._alive())

    def close(self) -> None:
        """Write what is left, and end the thread."""
        self.flush(uses=True)
        with self._changed:
            self._stopping = True
            thread = self._thread
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _behind(self, job: _Job) -> bool:
        full = len(self._pending) >= MOST_JOBS or (self._pending and self._nbytes + job.nbytes > MOST_BYTES)
        return bool(full or (job.dear and self._dear)) and self._alive() and not self._stopping and not self._resting()

    def _resting(self) -> bool:
        return time.monotonic() < self._resting_until

    def _any_results(self) -> bool:
        return bool(self._pending or self._at_work or self._written)

    def _anything(self) -> bool:
        return self._any_results() or bool(self._uses or self._lost or self._misses) or self._noting

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
            while self._wait():
                try:
                    self._go_on()
                except Exception as error:  # of the disk or of SQLite; it must end neither the thread nor the run
                    self._rest(error)
        finally:
            self._keeper.close()
            with self._changed:
                self._thread = None
                self._changed.notify_all()
            self._settle(list(self._afterwards))

    def _wait(self) -> bool:
        """Wait for something to do. False when all is done."""
        with self._changed:
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._pending or self._stopping or (self._asked and self._anything()),
                timeout=self._leisure(),
            )
            return not self._stopping or self._anything() or bool(self._unsynced)

    def _leisure(self) -> float | None:
        """Seconds until there is something to do anyway."""
        times = [self._written_since + NOTE_SECONDS] if self._written else []
        times += [self._sync_at] if self._unsynced else []
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _go_on(self) -> None:
        if self._resting():
            self._forget()
            return
        self._keeper.open()
        while len(self._written) < BATCH and (job := self._next()) is not None:
            self._write(job)
        now = time.monotonic()
        late = len(self._written) >= BATCH or (self._written and now >= self._written_since + NOTE_SECONDS)
        if late or self._asked or self._stopping:
            self._note()
        while self._unsynced and not self._pending and (self._stopping or now >= self._sync_at):
            self._folder.sync(self._unsynced.popleft())
            began, now = now, time.monotonic()
            self._sync_at = now + (now - began) / SYNC_SHARE

    def _next(self) -> _Job | None:
        with self._changed:
            for key, job in self._pending.items():
                self._at_work[key] = job
                del self._pending[key]
                self._nbytes -= job.nbytes
                return job
        return None

    def _write(self, job: _Job) -> None:
        key = job.label.key
        try:
            nbytes = self._folder.write(job.label, self._codec.encode(job.outputs))
        except NoCodec as error:
            if error.kind not in self._refused:
                self._refused.add(error.kind)
                log.info("%s; results with it are kept in memory alone", error)
        else:
            if not self._written:
                self._written_since = time.monotonic()
            self._written.append((job.label, nbytes))
            if job.label.seconds >= SYNC_ABOVE:
                self._unsynced.append(key)
        finally:
            self._settle([key])

    def _note(self) -> None:
        """Tell the index what happened."""
        with self._changed:
            uses, lost, misses = self._uses, self._lost, self._misses
            self._uses, self._lost, self._misses = Counter(), [], 0
            self._noting, self._asked = True, False
        try:
            self._keeper.record(self._written, uses, misses, lost)
            if self._written:
                self._keeper.tidy()
            with self._changed:
                self._written = []
        finally:
            self._noting = False

    def _settle(self, keys: list[Key]) -> None:
        """Let go of results that are written or will not be, and do what was to be done after that."""
        for key in keys:
            with self._changed:
                self._at_work.pop(key, None)
                if key in self._pending:  # put again meanwhile
                    continue
                actions = self._afterwards.pop(key, [])
                if key in self._dear:
                    self._dear.remove(key)
                    self._changed.notify_all()
            for action in actions:
                action()

    def _forget(self) -> None:
        """Let go of everything that was to be written or noted."""
        with self._changed:
            given_up = [*self._at_work, *self._pending]
            self._pending.clear()
            self._nbytes = 0
            self._written, self._uses, self._lost, self._misses = [], Counter(), [], 0
            self._unsynced.clear()
        self._settle(given_up)

    def _rest(self, error: Exception) -> None:
        self._keeper.close()
        self._resting_until = time.monotonic() + REST_SECONDS
        if not self._warned:
            self._warned = True
            log.warning("results are not kept on disk for now, the run goes on: %s (%s)", error, self._folder.root)
        self._forget()  # at last, as nobody waits for this any more then
