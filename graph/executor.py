"""The executor: threads that run the steps of any number of runs, each step in its lane.

The thread that asks for a run works on it too, so a graph with nothing to do side by side never leaves that thread.
Other threads join when more can run at once than one thread does, but not for steps that are over sooner than a thread
wakes.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock, Thread
from traceback import clear_frames
from typing import Any, cast

from graph.active_run import ActiveRun, Outcome, RunOptions, Task
from graph.awaiting import EventLoop
from graph.calling import arguments, outputs_of
from graph.cancellation import Cancellation, Progress
from graph.codec import Codec, NoCodec
from graph.errors import Cancelled, InputChanged, NodeError, NodeTimeout, OutOfMemory, RunFailed
from graph.events import Emit, ignore
from graph.fingerprints import fingerprint
from graph.folders import Folders
from graph.identities import Revealed, item_name
from graph.keys import Key, Origin
from graph.lanes import Lanes, usual_lanes
from graph.lists import Items
from graph.previews import Preview
from graph.recording import recording
from graph.resolve import Graph, Step
from graph.store import FREE, Outputs, Store
from graph.values import Service, Shortage, Ui, Value

CHECK_SECONDS = 0.05
"""How often a run that waits looks whether it is cancelled, or whether another process has made what it waits for."""
BRIEF_SECONDS = 0.0005
"""A node that takes less is not worth waking a thread for."""
LEASE_SECONDS = 0.005
"""A node that takes less is not worth asking other processes about."""
IDLE_SECONDS = 10.0
"""How long a thread without work stays."""
RECENT = 100_000


@dataclass(frozen=True, slots=True)
class Result:
    """What a run made: the outputs of its targets, what they have to show, and which steps of the document failed.

    What a step inside a composite shows stands under that step's own id (`7.3`). Outputs are shared with the store and
    with other runs: they must not be changed in place.
    """

    outputs: Mapping[str, Outputs]
    shown: Mapping[str, Ui]
    failures: tuple[NodeError, ...] = ()

    def checked(self) -> "Result":
        """Itself, or RunFailed if any step failed."""
        if self.failures:
            raise RunFailed(self.failures)
        return self


class _Waiter:
    """A thread that waits to be given a step; if it only watches over its run, it is never given one."""

    __slots__ = ("_gate", "helps", "task")

    def __init__(self, helps: bool = True) -> None:
        self._gate = Lock()
        self._gate.acquire()
        self.helps = helps
        self.task: Task | None = None

    def give(self, task: Task) -> None:
        self.task = task
        self.wake()

    def wait(self, seconds: float) -> bool:
        """Wait to be woken; False if nobody did in time."""
        return self._gate.acquire(timeout=seconds)

    def wake(self) -> None:
        with suppress(RuntimeError):  # it is awake already
            self._gate.release()


@dataclass(slots=True)
class _Flight:
    """A step that is being made, and those of other runs that wait for it."""

    task: Task
    waiters: list[Task] = field(default_factory=list[Task])


class Executor:
    """Runs graphs. Safe to use from several threads: their runs share lanes, threads, and what they make.

    Args:
        lanes: how many steps each lane has room for at once; others are as in `usual_lanes`.
        threads: how many threads may join those that ask for runs; by default as many as the lanes have room for.
            With 0 every run is made by the thread that asks for it, one step after the other.
        codec: what fingerprints are made with.
    """

    def __init__(
        self, lanes: Mapping[str, int] | None = None, *, threads: int | None = None, codec: Codec | None = None
    ) -> None:
        widths = usual_lanes() | dict(lanes or {})
        self._lanes = Lanes(widths)
        self._most_threads = sum(width for width in widths.values() if width < 1000) if threads is None else threads
        self._codec = codec or Codec()
        self._lock = Lock()
        self._serial = 0
        self._threads = 0
        self._idle: list[_Waiter] = []
        self._callers: dict[int, _Waiter] = {}
        """Threads that wait for their own run, by the run's serial number."""
        self._flights: dict[Key, _Flight] = {}
        self._recent: dict[Key, None] = {}
        """Keys of what was made lately: worth a second look in the store."""
        self._seconds: dict[str, float] = {}
        """How long nodes take, by class."""
        self._loop = EventLoop()

    def run(
        self,
        graph: Graph,
        store: Store,
        *,
        folders: Folders,
        services: Mapping[type[Service], Service] | None = None,
        emit: Emit = ignore,
        cancellation: Cancellation | None = None,
        options: RunOptions | None = None,
    ) -> Result:
        """Run a graph. Raises Cancelled; failures of nodes are in the result, beside everything that did not need them.

        Args:
            services: what is injected into nodes, by type; progress, previews and cancellation are added.
            emit: is told everything that happens, one event at a time, in order, by whichever thread it happens in.
        """
        with self._lock:
            self._serial += 1
            serial = self._serial
        cancellation = cancellation or Cancellation()
        run = ActiveRun(serial, store, folders, services or {}, emit, cancellation, options or RunOptions())
        status = "failed"
        try:
            with recording(None):
                self._see_through(run, graph)
            outputs = {target: run.values[target] for target in graph.targets if target in run.values}
            status = "failed" if run.failures else "ok"
            return Result(outputs, run.shown, tuple(run.failures))
        except (Cancelled, KeyboardInterrupt):
            status = "cancelled"
            raise
        finally:
            run.tell_end(status)

    # One run, in the thread that asked for it.

    def _see_through(self, run: ActiveRun, graph: Graph) -> None:
        waiter = _Waiter(helps=run.options.node_timeout is None)
        try:
            run.cancellation.check()
            run.begin(graph)
            with self._lock:
                for each in run.ready():
                    self._lanes.add(each)
            task = self._next_own(run, waiter)
            while True:
                if run.cancellation.requested:
                    self._stop(run, Cancelled("the run was cancelled"))
                if task is not None:
                    self._work(task)
                    task = self._next_own(run, waiter)
                elif run.over:
                    break
                else:
                    task = self._wait(run, waiter)
            if run.stopping is not None:
                raise run.stopping
            stuck = run.stuck(graph.targets)
            if stuck:
                raise RuntimeError(f"nothing is left to run, but these were not made: {', '.join(stuck)}")
        except BaseException as error:
            self._stop(run, error)
            raise
        finally:
            with self._lock:
                self._callers.pop(run.serial, None)

    def _stop(self, run: ActiveRun, why: BaseException) -> None:
        """Start nothing more of a run, and let those go on who wait for what it would have made."""
        run.stop(why)
        with self._lock:
            dropped = cast("list[Task]", self._lanes.forget(run.serial))
            for flight in self._flights.values():
                dropped += [task for task in flight.waiters if task.queue is run]
                flight.waiters = [task for task in flight.waiters if task.queue is not run]
            parked, run.parked = run.parked, []
            dropped += parked
            for task in dropped:
                self._land(task, shared=False)
        for task in dropped:
            if task.claim is not None:
                task.claim.release()
        run.dismiss(dropped)

    def _next_own(self, run: ActiveRun, waiter: _Waiter) -> Task | None:
        """The next step of a run for its own thread. If there is none, the thread is known to wait."""
        with self._lock:
            task = self._next(run.serial) if waiter.helps else None
            self._hand_out(task)
            if task is None:
                self._callers[run.serial] = waiter
        return task

    def _wait(self, run: ActiveRun, waiter: _Waiter) -> Task | None:
        """Wait until there is something to do, or to look after."""
        waiter.wait(CHECK_SECONDS)
        with self._lock:
            self._callers.pop(run.serial, None)
            task, waiter.task = waiter.task, None
        if run.parked:
            self._look_again(run)
        if run.options.node_timeout is not None:
            self._check_time(run, run.options.node_timeout)
        return self._next_own(run, waiter) if task is None else task

    # Giving out steps. All of this is done under the lock.

    def _next(self, serial: int | None = None, passing: Callable[[Task], bool] | None = None) -> Task | None:
        """Take the next step that may start, past those that are being made already."""
        while True:
            task = cast("Task | None", self._lanes.pick(serial, cast(Any, passing)))
            if task is None or task.key is None or task.claim is not None:
                return task
            flight = self._flights.get(task.key)
            if flight is None:
                self._flights[task.key] = _Flight(task)
                return task
            self._lanes.free(task)
            flight.waiters.append(task)

    def _hand_out(self, mine: Task | None) -> None:
        """Give other threads what can start beside the step that this thread takes."""
        passing = self._is_brief if mine is not None and self._is_brief(mine) else None
        for serial, waiter in list(self._callers.items()):
            if waiter.helps and (task := self._next(serial, passing)) is not None:
                del self._callers[serial]
                waiter.give(task)
        while self._idle or self._threads < self._most_threads:
            task = self._next(None, passing)
            if task is None:
                return
            (self._idle.pop() if self._idle else self._new_thread()).give(task)

    def _is_brief(self, task: Task) -> bool:
        return self._seconds.get(task.step.node.name, 1.0) < BRIEF_SECONDS

    def _new_thread(self) -> _Waiter:
        waiter = _Waiter()
        self._threads += 1
        Thread(target=self._help, args=(waiter,), name="latentloom", daemon=True).start()
        return waiter

    def _land(self, task: Task, *, shared: bool) -> list[Task]:
        """End the flight of a step. Returns those that waited for it, unless they have to make it themselves."""
        key = task.key
        flight = None if key is None else self._flights.get(key)
        if key is None or flight is None or flight.task is not task:
            return []
        del self._flights[key]
        if shared:
            self._recent[key] = None
            if len(self._recent) > RECENT:
                del self._recent[next(iter(self._recent))]
            return flight.waiters
        for waiter in flight.waiters:
            self._lanes.add(waiter)
        return []

    # Working.

    def _help(self, waiter: _Waiter) -> None:
        """What a thread of the executor does."""
        while True:
            woken = waiter.wait(IDLE_SECONDS)
            with self._lock:
                task, waiter.task = waiter.task, None
                if task is None and not woken and waiter in self._idle:
                    self._idle.remove(waiter)
                    self._threads -= 1
                    return
            while task is not None:
                self._work(task)
                if task.abandoned:  # another thread has taken this one's place
                    return
                with self._lock:
                    task = self._next()
                    self._hand_out(task)
                    if task is None:
                        self._idle.append(waiter)

    def _work(self, task: Task) -> None:
        """Make a step, unless somebody else has made it or is making it."""
        run = task.queue
        try:
            made = self._made_elsewhere(task)
            if made is not None:
                self._done(task, made)
            elif task in run.parked:
                pass
            elif not run.start(task):
                with self._lock:
                    self._lanes.free(task)
                    self._land(task, shared=False)
            elif (outcome := self._perform(task)) is not None:
                self._done(task, outcome)
        except BaseException:
            with self._lock:
                self._lanes.free(task)
                self._land(task, shared=False)
            raise

    def _made_elsewhere(self, task: Task) -> Outcome | None:
        """What another run or process has made of a step meanwhile. If one is at it now, the step is parked."""
        key, store, node = task.key, task.queue.store, task.step.node
        if key is None:
            return None
        look = key in self._recent or task.claim is not None
        if task.claim is None and self._seconds.get(node.name, 1.0) >= LEASE_SECONDS:
            task.claim = store.claim(key)
            if task.claim is None:
                with self._lock:
                    self._lanes.free(task)
                task.queue.parked.append(task)
                return None
            look = look or (task.claim is not FREE and key in store)
        outputs = store.get(key) if look else None
        if outputs is None:
            return None
        return Outcome(outputs, contents=self._contents(task.step, key, outputs), reused=True)

    def _look_again(self, run: ActiveRun) -> None:
        """Go on with steps that another process was making."""
        for task in list(run.parked):
            task.claim = run.store.claim(cast(Key, task.key))
            if task.claim is not None:
                run.parked.remove(task)
                with self._lock:
                    self._lanes.add(task)

    def _check_time(self, run: ActiveRun, seconds: float) -> None:
        """Give up steps that have been running for too long. Their threads are left to themselves."""
        now = time.perf_counter()
        for task, began in list(run.running.items()):
            if now - began <= seconds:
                continue
            ready = run.abandon(task, NodeTimeout(seconds))
            if ready is None:
                continue
            with self._lock:
                self._lanes.free(task)
                self._land(task, shared=False)
                if task.awaited is None:
                    self._threads -= 1
                for each in ready:
                    self._lanes.add(each)
                self._hand_out(None)
            if task.awaited is not None:
                task.awaited.cancel()

    def _done(self, task: Task, outcome: Outcome) -> None:
        """Take in what came of a step, for its own run and for those that waited for it."""
        run = task.queue
        ready = run.complete(task, outcome)
        claim, task.claim = task.claim, None
        if claim is not None:
            claim.release()
        if task.abandoned:
            return
        shared = not isinstance(outcome.error, Cancelled)
        name = task.step.node.name
        with self._lock:
            self._lanes.free(task)
            if outcome.error is None and not outcome.reused:
                before = self._seconds.get(name)
                self._seconds[name] = outcome.seconds if before is None else 0.8 * before + 0.2 * outcome.seconds
            waiters = self._land(task, shared=shared)
        theirs = replace(outcome, reused=outcome.error is None)
        for waiter in waiters:
            ready += waiter.queue.complete(waiter, theirs)
        with self._lock:
            for each in ready:
                self._lanes.add(each)
            for each in (task, *waiters):
                caller = self._callers.get(each.queue.serial)
                if caller is not None and each.queue.over:
                    caller.wake()

    # Calling nodes.

    def _perform(self, task: Task) -> Outcome | None:
        """Call a step's node; None if it is async and under way."""
        try:
            outcome = self._call(task)
        except Exception as error:
            shortage = _shortage(task.queue, error)
            if shortage is None:
                return Outcome(error=error)
            # What was idle has been freed: it may do now.
            _let_go_of(error)
            try:
                outcome = self._call(task)
            except Exception as again:
                missing = _shortage(task.queue, again)
                return Outcome(error=again if missing is None else _out_of_memory(again, missing, shortage))
            except (SystemExit, asyncio.CancelledError) as again:
                return Outcome(error=again)
        except (SystemExit, asyncio.CancelledError) as error:
            return Outcome(error=error)
        return outcome

    def _call(self, task: Task) -> Outcome | None:
        run, step = task.queue, task.step
        began = time.perf_counter()
        given = arguments(step, run.values)
        prints = self._fingerprints(given) if run.options.check_inputs else {}
        call = dict(given)
        for name, kind in step.node.services.items():
            call[name] = self._service(kind, task)
        returned = step.node.function(**call)
        if not step.node.is_async:
            return self._received(task, given, prints, returned, began)

        def done(returned: object, raised: BaseException | None) -> None:
            if raised is None:
                try:
                    outcome = self._received(task, given, prints, returned, began)
                except Exception as error:
                    outcome = Outcome(error=error)
            else:
                stopping = isinstance(raised, asyncio.CancelledError) and run.stopping is not None
                outcome = Outcome(error=Cancelled("the run was cancelled") if stopping else raised)
            self._done(task, outcome)
            with self._lock:
                self._hand_out(None)

        task.awaited = self._loop.submit(cast("Coroutine[Any, Any, object]", returned), done)
        if run.stopping is not None:
            task.awaited.cancel()
        return None

    def _received(
        self, task: Task, given: Mapping[str, object], prints: Mapping[str, bytes], returned: object, began: float
    ) -> Outcome:
        """What a node returned, looked over."""
        step = task.step
        for name, before in prints.items():
            if self._fingerprints({name: given[name]}) != {name: before}:
                raise InputChanged(name)
        outputs = outputs_of(step.node, returned)
        seconds = time.perf_counter() - began
        if task.key is None:
            return Outcome(outputs, returned if isinstance(returned, Ui) else None, seconds=seconds)
        return Outcome(outputs, seconds=seconds, contents=self._contents(step, task.key, outputs))

    def _contents(self, step: Step, key: Key, outputs: Outputs) -> tuple[Revealed, ...] | None:
        """The names of outputs by which what follows goes, if it goes by content."""
        if not step.node.cutoff:
            return None
        return tuple(self._content(value, (key, at)) for at, value in enumerate(outputs))

    def _content(self, value: object, place: Origin) -> Revealed:
        items = None
        if isinstance(value, Items):  # which have no entries of their own
            items = tuple(Revealed(self._named(item) or item_name(place, at)) for at, item in enumerate(value.values))
        return Revealed(self._named(value) or place, place, items)

    def _named(self, value: object) -> Origin | None:
        try:
            return fingerprint(value, self._codec), 0
        except NoCodec:
            return None

    def _fingerprints(self, given: Mapping[str, object]) -> dict[str, bytes]:
        named = {name: self._named(value) for name, value in given.items() if _shared(value)}
        return {name: identity[0] for name, identity in named.items() if identity is not None}

    def _service(self, kind: type[Service], task: Task) -> Service:
        run = task.queue
        if kind is Progress:
            return Progress(partial(run.progress, task), run.cancellation)
        if kind is Preview:
            return Preview(partial(setattr, task, "preview") if run.options.previews else None)
        service = run.services.get(kind)
        if service is None:
            raise LookupError(f"the node needs the service {kind.__name__}, which this engine does not have")
        return service

    def close(self) -> None:
        """Let go of the event loop; the threads go by themselves. No run may be under way."""
        self._loop.close()


def _shared(value: object) -> bool:
    """Whether an input is, or holds, what others may be given too."""
    return isinstance(value, Value | list)


def _shortage(run: ActiveRun, error: Exception) -> Shortage | None:
    """What was missing, if a node failed for want of memory; what was idle is free by then."""
    for service in run.services.values():
        shortage = service.relieve(error)
        if shortage is not None:
            return shortage
    return None


def _out_of_memory(error: Exception, last: Shortage, first: Shortage) -> OutOfMemory:
    failure = OutOfMemory(replace(last, freed=first.freed + last.freed))
    failure.__cause__ = error
    return failure


def _let_go_of(error: BaseException) -> None:
    """Free what the frames of a failed call hold, before it is tried again."""
    clear_frames(error.__traceback__)
