"""The executor: runs graphs, any number of them side by side, each step in its lane.

The thread that asks for a run works on it too, so a graph with nothing to do side by side never leaves that thread.
Which thread makes what is decided in `graph/crew.py`, what comes of it is taken down in `graph/active_run.py`.
"""

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import cast

from graph.active_run import ActiveRun, RunOptions, here
from graph.cancellation import Cancellation
from graph.codec import Codec
from graph.crew import Crew, Member
from graph.errors import Cancelled, InputChanged, NodeError, NodeTimeout, RunFailed
from graph.events import Emit, ignore
from graph.folders import Folders
from graph.interrupts import admitted, held_off
from graph.keys import Key
from graph.lanes import UNLIMITED, usual_lanes
from graph.making import Maker
from graph.resolve import Graph
from graph.store import FREE, Outputs, Store
from graph.tasks import Outcome, Task
from graph.values import Service, Ui

CHECK_SECONDS = 0.05
"""How often a run that waits looks whether it is cancelled, or whether another process has made what it waits for."""
LEASE_SECONDS = 0.005
"""A node that takes less is not worth asking other processes about."""
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


class Executor:
    """Runs graphs. Safe to use from several threads: their runs share lanes, threads, and what they make.

    Args:
        lanes: how many steps each lane has room for at once; others are as in `usual_lanes`.
        threads: how many threads may join those that ask for runs; by default as many as the lanes have room for.
            With 0 each run is made by a single thread, one step after the other.
        codec: what fingerprints are made with.
    """

    def __init__(
        self, lanes: Mapping[str, int] | None = None, *, threads: int | None = None, codec: Codec | None = None
    ) -> None:
        self._widths = usual_lanes() | dict(lanes or {})
        self._threads = sum(width for width in self._widths.values() if width < UNLIMITED)
        if threads is not None:
            self._threads = threads
        self._codec = codec or Codec()
        self._maker = Maker(self._codec)
        self._shares = True
        """Whether its runs wait for what other processes are making."""
        self._lock = Lock()
        self._serial = 0
        self._recent: dict[Key, None] = {}
        """Keys of what was made lately: worth a second look in the store."""
        self._crew = Crew(self._widths, self._threads, self._help)

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

        A run that a node asks for (or whoever is told of an event) is part of that: it is made there and then by the
        same thread, and waits for no other run, so that the two cannot wait for each other. If it has no cancellation
        of its own, it is cancelled with the run around it.

        Args:
            services: what is injected into nodes, by type; progress, previews and cancellation are added.
            emit: is told everything that happens, one event at a time, in order, by whichever thread it happens in.
        """
        around = here.run
        if around is not None and self._shares:
            return self._apart().run(
                graph,
                store,
                folders=folders,
                services=services,
                emit=emit,
                cancellation=cancellation or around.cancellation,
                options=options,
            )
        cancellation = cancellation or Cancellation()
        run = ActiveRun(
            self._next_serial(), store, folders, services or {}, emit, cancellation, options or RunOptions()
        )
        status = "failed"
        here.run = run
        try:
            with held_off():
                self._see_through(run, graph)
            outputs = {target: run.values[target] for target in graph.targets if target in run.values}
            status = "failed" if run.failures else "ok"
            return Result(outputs, run.shown, tuple(run.failures))
        except (Cancelled, KeyboardInterrupt):
            status = "cancelled"
            raise
        finally:
            run.tell_end(status)
            here.run = around

    def close(self) -> None:
        """Have threads end that have nothing to do, as they would in a while. The executor can still be used."""
        self._crew.close()

    def _apart(self) -> "Executor":
        """An executor for a run inside a node: it shares nothing with this one that one could wait for."""
        apart = Executor(self._widths, threads=0, codec=self._codec)
        apart._shares = False
        return apart

    def _next_serial(self) -> int:
        with self._lock:
            if self._crew.process != os.getpid():  # after a fork there are no threads, and locks are as they were
                self._crew = Crew(self._widths, self._threads, self._help)
            self._serial += 1
            return self._serial

    # One run

    def _see_through(self, run: ActiveRun, graph: Graph) -> None:
        member = Member(run.serial)
        self._crew.enter(member)
        try:
            run.cancellation.check()
            run.begin(graph)
            self._crew.add(run, run.ready(), coming=True)
            if run.options.node_timeout is None:
                self._serve(run, member)
            else:
                self._watch(run, member, run.options.node_timeout)
            if run.stopping is not None:
                raise run.stopping
            stuck = run.stuck(graph.targets)
            if stuck:
                raise RuntimeError(f"nothing is left to run, but these were not made: {', '.join(stuck)}")
        except BaseException as error:
            run.stop(error)
            raise
        finally:
            self._release(self._crew.leave(run))
            run.loop.close()

    def _serve(self, run: ActiveRun, member: Member) -> None:
        """What the thread of a run does, until the run is over or goes on without this thread."""
        task = self._crew.next(member)
        while not self._ended(run, member):
            if task is None:
                self._crew.wait(member, CHECK_SECONDS)
                self._look_again()
                task = member.task or self._crew.next(member)
            else:
                self._make(task)
                if task.abandoned:
                    return
                task = self._crew.next(member)

    def _ended(self, run: ActiveRun, member: Member) -> bool:
        """Whether there is nothing more to wait for. Of a run that is to stop, what has not begun is dropped."""
        if run.cancellation.requested:
            run.stop(Cancelled("the run was cancelled"))
        if run.stopping is not None:
            if isinstance(run.stopping, KeyboardInterrupt) or member.lost:
                return True
            dropped = self._crew.drop(run)
            self._release(dropped)
            run.dismiss(dropped)
        return run.over

    def _watch(self, run: ActiveRun, member: Member, seconds: float) -> None:
        """Look after a run whose nodes have a limited time. Another thread serves it, and may be left behind."""
        served = self._stand_in(run, member)
        while not (served.is_set() or self._ended(run, member)):
            with admitted:
                served.wait(min(CHECK_SECONDS, seconds))
            if member.task in self._give_up_overdue(run, seconds):
                member = Member(run.serial)
                self._crew.enter(member)
                served = self._stand_in(run, member)

    def _stand_in(self, run: ActiveRun, member: Member) -> Event:
        served = Event()

        def serve() -> None:
            here.run = run
            try:
                self._serve(run, member)
            finally:
                served.set()

        Thread(target=serve, name="latentloom run", daemon=True).start()
        return served

    def _give_up_overdue(self, run: ActiveRun, seconds: float) -> list[Task]:
        """Fail steps that have been running for too long. Returns those whose threads are left to themselves."""
        now, left = time.perf_counter(), list[Task]()
        for task, began in list(run.running.items()):
            if now - began <= seconds:
                continue
            ready = run.abandon(task, NodeTimeout(seconds))
            if ready is None:
                continue
            self._release([task])
            if task.awaited is None:
                left.append(task)
            else:
                run.loop.give_up(task.awaited)
            self._crew.give_up(task)
            self._crew.add(run, ready, coming=False)
        for task in self._crew.drop_waiting(run, now - seconds):
            self._crew.add(run, run.complete(task, Outcome(error=NodeTimeout(seconds))), coming=False)
        return left

    # One step

    def _help(self, task: Task) -> None:
        """Make a step of any run."""
        here.run = task.queue
        self._make(task)
        here.run = None

    def _make(self, task: Task) -> None:
        """Make a step, unless somebody else has made it or is making it. Never raises."""
        run = task.queue
        try:
            outcome = task.made
            if outcome is None and not self._is_ours(task):
                return
            outcome = outcome or self._made_elsewhere(task)
            if outcome is None and not run.start(task):
                self._crew.land(task, None)
                self._release([task])
                self._crew.add(run, (), coming=True)
                return
            outcome = outcome or self._maker.make(task, self._finish)
            if outcome is not None:
                self._done(task, outcome, coming=True)
        except BaseException as error:  # a fault in here; nobody will hear of the step again
            run.stop(error)
            self._crew.lose(task)

    def _is_ours(self, task: Task) -> bool:
        """Whether a step is for this process to make. While another one is at it, the step is set aside."""
        if not self._shares or task.key is None or task.claim is not None:
            return True
        if self._crew.seconds(task.step.node.name) < LEASE_SECONDS:
            return True
        try:
            task.claim = task.queue.store.claim(task.key)
        except Exception as error:
            task.queue.stop(error)
            return True
        if task.claim is None:
            self._crew.park(task)
        return task.claim is not None

    def _made_elsewhere(self, task: Task) -> Outcome | None:
        """What another run or process has made of a step since this run looked."""
        key, store = task.key, task.queue.store
        if key is None:
            return None
        try:
            look = key in self._recent or (task.claim not in (None, FREE) and key in store)
            outputs = store.get(key) if look else None
        except Exception as error:
            task.queue.stop(error)
            return None
        if outputs is None:
            return None
        return Outcome(outputs, contents=self._maker.contents(task.step, key, outputs), reused=True)

    def _look_again(self) -> None:
        """Go on with steps that another process was making, of all runs."""
        for task in self._crew.parked:
            try:
                claim = task.queue.store.claim(cast(Key, task.key))
            except Exception as error:
                task.queue.stop(error)
                continue
            if claim is not None:
                task.claim = claim
                if not self._crew.resume(task):
                    claim.release()

    def _finish(self, task: Task, outcome: Outcome) -> None:
        """An async node has returned."""
        self._done(task, outcome, coming=False)

    def _done(self, task: Task, outcome: Outcome, *, coming: bool) -> None:
        """Take in what came of a step, for its own run and for those that wait for it."""
        run = task.queue
        self._crew.free(task, outcome)
        if task.made is None and not task.abandoned:
            self._pass_on(task, outcome)
        ready = run.complete(task, outcome)
        task.made = None
        self._crew.add(run, ready, coming=coming)

    def _pass_on(self, task: Task, outcome: Outcome) -> None:
        """Keep what came of a step, and give it to those that wait for it."""
        run = task.queue
        if outcome.error is None and not outcome.reused:
            try:
                run.keep(task, outcome)
            except Exception as error:
                run.stop(error)
        self._release([task])
        shared = not isinstance(outcome.error, Cancelled | InputChanged)
        if shared and task.key is not None:
            self._recent[task.key] = None
            if len(self._recent) > RECENT:
                self._recent.pop(next(iter(self._recent)), None)
        self._crew.land(task, outcome if shared else None)

    def _release(self, tasks: Iterable[Task]) -> None:
        """Let other processes have what these steps had the right to make."""
        for task in tasks:
            claim, task.claim = task.claim, None
            if claim is not None:
                claim.release()
