"""The crew: the threads that make steps, and which step each of them makes next.

Each run has a thread of its own, which makes steps of that run alone: mostly the one that asked for it. Helpers make
steps of all runs. They join when more can run at once than is running, but not for steps that are over sooner than a
thread wakes: those are left to a thread that is awake.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from threading import Lock, Thread
from typing import cast

from graph.active_run import ActiveRun
from graph.flights import Flights
from graph.interrupts import admitted
from graph.lanes import UNLIMITED, Job, Lanes
from graph.tasks import Outcome, Task

BRIEF_SECONDS = 0.0005
"""A node that takes less is not worth waking a thread for."""
IDLE_SECONDS = 10.0
"""How long a helper without work stays."""
ARRIVALS = "arrivals"
"""The lane of steps that another run has made: all that is left is to take in what came of them."""


class Member:
    """A thread that makes steps.

    Args:
        serial: of the run that it belongs to; None for a helper.
    """

    __slots__ = ("_gate", "brief", "lost", "serial", "task", "waiting")

    def __init__(self, serial: int | None = None) -> None:
        self.serial = serial
        self.task: Task | None = None
        """What it makes, or has been given to make."""
        self.brief = True
        """Whether it will come back for more at once."""
        self.waiting = False
        self.lost = False
        """Whether a step of its run came to nothing by a fault, so that the run cannot wait for it."""
        self._gate = Lock()
        self._gate.acquire()

    def wait(self, seconds: float) -> bool:
        """Wait to be woken; False if nobody did in time. A Ctrl-C ends it."""
        with admitted:
            return self._gate.acquire(timeout=seconds)

    def wake(self) -> None:
        with suppress(RuntimeError):  # it is awake already
            self._gate.release()


class Crew:
    """Gives steps to threads. Safe for several threads.

    Args:
        widths: how many steps each lane has room for.
        most: how many helpers there may be.
        make: makes a step of whatever run; it must not raise.
    """

    def __init__(self, widths: Mapping[str, int], most: int, make: Callable[[Task], None]) -> None:
        self.process = os.getpid()
        self._lanes = Lanes({**widths, ARRIVALS: UNLIMITED})
        self._flights = Flights()
        self._most = most
        self._make = make
        self._lock = Lock()
        self._own: dict[int, Member] = {}
        """The thread that each run has for itself, by the run's serial number."""
        self._helpers: set[Member] = set()
        self._idle: list[Member] = []
        self._parked: dict[Task, None] = {}
        """Steps that another process is making."""
        self._seconds: dict[str, float] = {}
        """How long nodes take, by class."""

    # Runs

    def enter(self, member: Member) -> None:
        """Take in the thread of a run; from now on it is given steps. It may replace another."""
        with self._lock:
            self._own[cast(int, member.serial)] = member

    def leave(self, run: ActiveRun) -> list[Task]:
        """Forget a run and its thread. Returns what it had ready, or under way in a thread that was interrupted."""
        with self._lock:
            member = self._own.pop(run.serial, None)
            busy = {other.task for other in (*self._helpers, *self._own.values())}
            lost = [task for task in cast("list[Task]", self._lanes.held(run.serial)) if task not in busy]
            lost = [task for task in lost if task.awaited is None]
            if member is not None:
                member.task = None
            dropped = self._drop(run, lost)
            self._share_out()
        return dropped

    def drop(self, run: ActiveRun) -> list[Task]:
        """Forget what a run has ready. Returns it."""
        with self._lock:
            dropped = self._drop(run)
            if dropped:
                self._share_out()
        return dropped

    def _drop(self, run: ActiveRun, lost: Iterable[Task] = ()) -> list[Task]:
        dropped = cast("list[Task]", self._lanes.forget(run.serial))
        dropped += self._flights.grounded(run.serial)
        dropped += [task for task in self._parked if task.queue is run]
        dropped += lost
        for task in dropped:
            self._let_go(task)
        return dropped

    # Steps

    def add(self, run: ActiveRun, tasks: Iterable[Task], *, coming: bool) -> None:
        """Take in steps that are ready, unless their run has left. If there are none to come, its thread is told.

        Args:
            coming: this thread is about to ask for its next step, so there is no need to look for another one yet.
        """
        with self._lock:
            member = self._own.get(run.serial)
            if member is None:
                return
            for task in tasks:
                self._add(task)
            if member.waiting and (run.over or run.stopping is not None):
                member.wake()
            if not coming:
                self._share_out()

    def next(self, member: Member) -> Task | None:
        """The next step for a thread. If there is none, the thread is known to wait from now on."""
        with self._lock:
            member.task, member.waiting = None, False
            if member.serial is None and member not in self._helpers:  # given up: another has taken its place
                return None
            if self._share_out(member) is None:
                member.waiting = True
                if member.serial is None:
                    self._idle.append(member)
            return member.task

    def wait(self, member: Member, seconds: float) -> Task | None:
        """Wait to be given a step. After this the thread counts as awake, and has to ask with `next` again."""
        woken = member.wait(seconds)
        with self._lock:
            member.waiting = False
            if member in self._idle:
                self._idle.remove(member)
                if not woken:
                    self._helpers.discard(member)
            return member.task

    def free(self, task: Task, outcome: Outcome) -> None:
        """A step's node has returned: its place in the lane is for others."""
        name, seconds = task.step.node.name, outcome.seconds
        with self._lock:
            self._lanes.free(task)
            if seconds and not outcome.reused:
                before = self._seconds.get(name)
                self._seconds[name] = seconds if before is None else 0.8 * before + 0.2 * seconds
                if seconds >= BRIEF_SECONDS:
                    self._share_out()

    def land(self, task: Task, outcome: Outcome | None) -> None:
        """A step has been made, or will not be (None). Those of other runs that wait for it go on."""
        if task.key is None:
            return
        with self._lock:
            if outcome is None:
                self._let_go(task)
            elif others := self._flights.land(task):
                theirs = replace(outcome, reused=outcome.error is None)
                for other in others:
                    self._lanes.withdraw(other)
                    other.made, other.lane = theirs, ARRIVALS
                    self._lanes.add(other)
                self._share_out()

    def park(self, task: Task) -> None:
        """Set aside a step that another process is making."""
        with self._lock:
            self._lanes.free(task)
            self._parked[task] = None

    def resume(self, task: Task) -> bool:
        """Go on with a step that was set aside; False if somebody else has done that."""
        with self._lock:
            if task not in self._parked:
                return False
            del self._parked[task]
            self._lanes.add(task)
            return True

    @property
    def parked(self) -> list[Task]:
        return list(self._parked)

    def give_up(self, task: Task) -> None:
        """Do not wait for the thread that makes a step: its place in the lane and in the crew is for others."""
        with self._lock:
            self._let_go(task)
            self._helpers = {member for member in self._helpers if member.task is not task}
            self._share_out()

    def drop_waiting(self, run: ActiveRun, since: float) -> list[Task]:
        """Forget steps of a run that wait for what others have been at since before a time. Returns them."""
        with self._lock:
            dropped: list[Task] = []
            for task in self._flights.grounded(run.serial):
                maker = self._flights.maker(task)
                if maker is not None and maker.queue.running.get(maker, since) < since:
                    self._let_go(task)
                    dropped.append(task)
        return dropped

    def lose(self, task: Task) -> None:
        """A step has come to nothing, by a fault of the engine."""
        with self._lock:
            self._let_go(task)
            member = self._own.get(task.queue.serial)
            if member is not None:
                member.lost = True
                member.wake()
            self._share_out()

    def seconds(self, name: str) -> float:
        """How long a node takes; what has never run counts as slow."""
        return self._seconds.get(name, 1.0)

    def close(self) -> None:
        """Have helpers end that have nothing to do."""
        with self._lock:
            for member in self._idle:
                self._helpers.discard(member)
                member.wake()
            self._idle.clear()

    # What is done under the lock.

    def _add(self, task: Task) -> None:
        if task.queue.serial in self._own:
            self._flights.join(task)
            self._lanes.add(task)

    def _let_go(self, task: Task) -> None:
        """A step will not be made, or not by whoever was at it."""
        self._parked.pop(task, None)
        self._lanes.free(task)
        for other in self._flights.leave(task):
            self._add(other)

    def _share_out(self, me: Member | None = None) -> Task | None:
        """Give steps to threads, until there are no more of either. Returns what falls to `me`."""
        mine: Task | None = None

        def may(job: Job) -> bool:
            """Whether there is a thread for a step, and it is worth having."""
            task = cast(Task, job)
            own = self._own.get(task.queue.serial)
            if mine is None and me is not None and me is own:
                return True
            waits = own is not None and own.waiting
            if self._is_brief(task):
                if own is not None and not waits and own.brief:  # it will come to it
                    return False
                if mine is not None and me is not None and me.serial is None and me.brief:  # and so will this one
                    return False
            if mine is None and me is not None and me.serial is None:
                return True
            return waits or bool(self._idle) or len(self._helpers) < self._most

        while self._lanes.ready:
            task = self._pick(may)
            if task is None:
                break
            own = self._own.get(task.queue.serial)
            if mine is None and me is not None and (me.serial is None or me is own):
                mine = me.task = task
                me.brief = self._is_brief(task)
                continue
            taker = own if own is not None and own.waiting else self._free_helper()
            if taker is None:
                self._let_go(task)
                self._add(task)
                continue
            taker.task, taker.waiting, taker.brief = task, False, self._is_brief(task)
            taker.wake()
        return mine

    def _pick(self, may: Callable[[Job], bool]) -> Task | None:
        """Take the next step that may start, past those that are being made already."""
        while True:
            task = cast("Task | None", self._lanes.pick(may))
            if task is None or task.made is not None or self._flights.board(task):
                return task
            self._lanes.free(task)

    def _is_brief(self, task: Task) -> bool:
        return task.made is not None or task.step.node.is_async or self.seconds(task.step.node.name) < BRIEF_SECONDS

    # Helpers

    def _free_helper(self) -> Member | None:
        return self._idle.pop() if self._idle else self._hire()

    def _hire(self) -> Member | None:
        """A new helper; None if the system has no more threads."""
        member = Member()
        self._helpers.add(member)
        try:
            Thread(target=self._help, args=(member,), name="latentloom", daemon=True).start()
        except RuntimeError:
            self._helpers.discard(member)
            self._most = len(self._helpers)
            return None
        return member

    def _help(self, member: Member) -> None:
        while member in self._helpers:
            task = self.wait(member, IDLE_SECONDS) or self.next(member)
            while task is not None:
                self._make(task)
                task = self.next(member)
