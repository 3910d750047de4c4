"""The queue against a model of it in memory: whatever is asked in whatever order, both say the same."""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from server.database.database import Database
from server.database.errors import JobNotRetryable, LeaseLost, QueueDraining, TooManyJobs
from server.database.job_queue import LEASE, Mode
from server.database.jobs import ENDINGS, PRIORITIES, STATES, Ending, Lease, Outcome, Priority, State
from server.database.paging import JobFilter
from server.database.tallies import Counts
from tests.databases import Clock, World, new_job

T = TypeVar("T")

NONE: Any = multiple()  # pyright: ignore[reportUnknownVariableType]  (of an unknown type, as it has no values)
"""Nothing for a bundle."""
MOST = 6
"""Unfinished jobs that an owner may have."""
WORKERS = st.sampled_from(["one", "two", "three"])
OWNERS = st.sampled_from(["ann", "bob"])
ANYBODY = st.sampled_from([None, "ann", "bob"])


@dataclass
class Expected:
    """A job as it should be."""

    id: str
    age: int
    owner: str
    priority: Priority
    number: float
    state: State = "queued"
    attempts: int = 0
    claims: int = 0
    worker: str | None = None
    expires: datetime | None = None
    cancelling: bool = False

    @property
    def urgency(self) -> tuple[int, float, int]:
        return PRIORITIES.index(self.priority), self.number, self.age

    def holds(self, lease: Lease) -> bool:
        return (self.state, self.worker, self.claims) == ("running", lease.worker, lease.number)

    def end(self, state: Ending) -> None:
        self.state, self.cancelling, self.expires = state, False, None

    def taken_back(self, counts: bool) -> State:
        self.attempts -= not counts
        if self.cancelling:
            self.end("cancelled")
        elif counts and self.attempts == 3:
            self.end("failed")
        else:
            self.state, self.worker, self.expires = "queued", None, None
        return self.state


@dataclass
class Model:
    """A queue as it should be."""

    jobs: dict[str, Expected] = field(default_factory=dict[str, Expected])
    mode: Mode = "open"
    numbered: int = 0

    def of(self, owner: str | None, *states: State) -> Sequence[Expected]:
        return [job for job in self.jobs.values() if owner in (None, job.owner) and job.state in states]

    def waiting(self) -> Sequence[Expected]:
        return sorted(self.of(None, "queued"), key=lambda job: job.urgency)

    def is_full(self, owner: str) -> bool:
        return len(self.of(owner, "queued", "running")) >= MOST

    def next_number(self) -> int:
        self.numbered += 1
        return self.numbered


class Claims(RuleBasedStateMachine):
    """Two processes use one queue."""

    runner: ClassVar[asyncio.Runner]
    worlds: ClassVar[Sequence[World]]
    clock: ClassVar[Clock]

    job_ids: Bundle[str] = Bundle("job_ids")
    leases: Bundle[Lease] = Bundle("leases")

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize()
    def empty(self) -> None:
        world = self.worlds[0]
        self.run(world.queue.recover())
        self.run(world.queue.cancel_waiting())
        self.run(world.history.clear())
        self.run(world.queue.resume())
        self.model = Model(numbered=int(-self.run(world.submit(front=True)).number))
        self.run(world.queue.cancel_waiting())
        self.run(world.history.clear())
        self.ages = 0

    @rule(
        target=job_ids,
        world=st.integers(0, 1),
        owner=OWNERS,
        priority=st.sampled_from(PRIORITIES),
        number=st.none() | st.sampled_from([-1.5, 0, 2]),
        front=st.booleans(),
    )
    def submit(self, world: int, owner: str, priority: Priority, number: float | None, front: bool) -> Any:
        new = new_job(owner=owner, priority=priority, number=number, front=front)
        asked = self.worlds[world].queue.submit([new], MOST)
        if self.model.mode == "draining" or self.model.is_full(owner):
            with pytest.raises(QueueDraining if self.model.mode == "draining" else TooManyJobs):
                self.run(asked)
            return NONE
        (accepted,) = self.run(asked)
        if number is None:
            number = self.model.next_number() * (-1 if front else 1)
        assert (accepted.id, accepted.number) == (new.id, number)
        self.ages += 1
        self.model.jobs[new.id] = Expected(new.id, self.ages, owner, priority, number)
        return new.id

    @rule(target=leases, world=st.integers(0, 1), worker=WORKERS)
    def claim(self, world: int, worker: str) -> Any:
        claim = self.run(self.worlds[world].queue.claim(worker))
        waiting = self.model.waiting()
        if self.model.mode == "paused" or not waiting:
            assert claim is None
            return NONE
        job = waiting[0]
        job.state, job.worker, job.expires = "running", worker, self.clock.now + LEASE
        job.attempts += 1
        job.claims += 1
        assert claim is not None
        assert claim.lease == Lease(job.id, worker, job.claims)
        assert (claim.job.attempts, claim.expires) == (job.attempts, job.expires)
        return claim.lease

    def held(self, lease: Lease) -> Expected | None:
        job = self.model.jobs.get(lease.job_id)
        return job if job and job.holds(lease) else None

    @rule(world=st.integers(0, 1), lease=leases)
    def heartbeat(self, world: int, lease: Lease) -> None:
        asked = self.worlds[world].queue.heartbeat(lease)
        if job := self.held(lease):
            job.expires = self.clock.now + LEASE
            hold = self.run(asked)
            assert (hold.expires, hold.cancelling) == (job.expires, job.cancelling)
        else:
            self.refused(asked)

    @rule(world=st.integers(0, 1), lease=leases, ending=st.sampled_from(ENDINGS))
    def finish(self, world: int, lease: Lease, ending: Ending) -> None:
        asked = self.worlds[world].queue.finish(lease, Outcome(state=ending))
        if job := self.held(lease):
            job.end(ending)
            self.run(asked)
        else:
            self.refused(asked)

    @rule(lease=leases)
    def release(self, lease: Lease) -> None:
        asked = self.worlds[0].queue.release(lease)
        if job := self.held(lease):
            assert self.run(asked).state == job.taken_back(counts=False)
        else:
            self.refused(asked)

    def refused(self, asked: Coroutine[Any, Any, Any]) -> None:
        with pytest.raises(LeaseLost):
            self.run(asked)

    @rule(worker=WORKERS)
    def worker_dies(self, worker: str) -> None:
        lost = [job for job in self.model.of(None, "running") if job.worker == worker]
        taken = self.run(self.worlds[0].queue.worker_died(worker, "killed"))
        assert {back.job_id: back.state for back in taken} == {job.id: job.taken_back(counts=True) for job in lost}

    @rule(seconds=st.sampled_from([1, 29, 31]))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)
        lost = [job for job in self.model.of(None, "running") if job.expires and job.expires < self.clock.now]
        taken = self.run(self.worlds[1].queue.expire())
        assert {back.job_id: back.state for back in taken} == {job.id: job.taken_back(counts=True) for job in lost}

    @rule(prefix=st.sampled_from(["", "o", "t"]))
    def server_restarts(self, prefix: str) -> None:
        lost = [job for job in self.model.of(None, "running") if (job.worker or "").startswith(prefix)]
        taken = self.run(self.worlds[0].queue.recover(prefix))
        assert {back.job_id: back.state for back in taken} == {job.id: job.taken_back(counts=False) for job in lost}

    @rule(asked=st.lists(job_ids, max_size=3), owner=ANYBODY)
    def cancel(self, asked: list[str], owner: str | None) -> None:
        answers = self.run(self.worlds[1].queue.cancel(asked, owner))
        for job_id in set(asked):
            job = self.model.jobs.get(job_id)
            if job is None or owner not in (None, job.owner):
                assert answers[job_id] == "unknown"
            elif job.state == "queued":
                job.end("cancelled")
                assert answers[job_id] == "cancelled"
            elif job.state == "running":
                job.cancelling = True
                assert answers[job_id] == "asked"
            else:
                assert answers[job_id] == "over"

    @rule(owner=ANYBODY)
    def cancel_waiting(self, owner: str | None) -> None:
        waiting = self.model.of(owner, "queued")
        assert self.run(self.worlds[0].queue.cancel_waiting(owner)) == len(waiting)
        for job in waiting:
            job.end("cancelled")

    @rule(job_id=job_ids)
    def retry(self, job_id: str) -> None:
        job = self.model.jobs.get(job_id)
        if job is None:
            return
        asked = self.worlds[1].queue.retry(job_id, most_unfinished=MOST)
        if job.state not in ("failed", "cancelled"):
            with pytest.raises(JobNotRetryable):
                self.run(asked)
        elif self.model.mode == "draining" or self.model.is_full(job.owner):
            with pytest.raises(QueueDraining if self.model.mode == "draining" else TooManyJobs):
                self.run(asked)
        else:
            job.state, job.attempts, job.worker, job.number = "queued", 0, None, self.model.next_number()
            assert self.run(asked).number == job.number

    @rule(asked=st.lists(consumes(job_ids), max_size=2))
    def delete(self, asked: list[str]) -> None:
        over = [job_id for job_id in asked if self.model.jobs[job_id].state in ENDINGS]
        assert self.run(self.worlds[0].history.delete(asked)) == len(over)
        for job_id in over:
            del self.model.jobs[job_id]

    @rule(mode=st.sampled_from(["open", "paused", "draining"]))
    def set_mode(self, mode: Mode) -> None:
        queue = self.worlds[0].queue
        self.run({"open": queue.resume, "paused": queue.pause, "draining": queue.drain}[mode]())
        self.model.mode = mode
        assert self.run(self.worlds[1].queue.mode()) == mode

    @invariant()
    def both_say_the_same(self) -> None:
        if not hasattr(self, "model"):
            return
        jobs = self.run(self.worlds[0].history.page(descending=False)).jobs
        found = [(job.id, job.state, job.attempts, job.worker, job.cancelling, job.number) for job in jobs]
        assert found == [
            (job.id, job.state, job.attempts, job.worker, job.cancelling, job.number)
            for job in self.model.jobs.values()
        ]
        for owner in (None, "ann", "bob"):
            counts = Counts(**{state: len(self.model.of(owner, state)) for state in STATES})
            assert self.run(self.worlds[1].history.counts(owner)) == counts
        listed = self.run(self.worlds[1].history.page(JobFilter(), sort="urgency", descending=False)).jobs
        assert [job.id for job in listed] == [job.id for job in self.model.waiting()]


@pytest.fixture
def machine(url: str, anyio_backend: str) -> Iterator[type[Claims]]:
    """A kind of machine whose two processes share a database."""
    clock = Clock()
    with asyncio.Runner() as runner:
        databases = [runner.run(Database.open(url, clock)) for _ in range(2)]
        parts = {"runner": runner, "worlds": [World(database, clock) for database in databases], "clock": clock}
        yield type("ClaimsThere", (Claims,), parts)
        for database in databases:
            runner.run(database.close())


def test_the_queue_does_what_the_model_does(machine: type[Claims]):
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=20, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )
