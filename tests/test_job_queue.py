import asyncio
import math
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest

from server.database.documents import Document
from server.database.errors import (
    JobExists,
    JobNotFound,
    JobNotRetryable,
    LeaseLost,
    QueueDraining,
    TooManyJobs,
    WrongRequest,
)
from server.database.job_queue import LEASE
from server.database.jobs import Claim, JobError, Lease, NodeTiming, Outcome
from server.database.paging import JobFilter
from server.database.tables import document
from server.database.tallies import Counts
from tests.databases import WORKFLOW, World, new_job, opened

pytestmark = pytest.mark.anyio

DONE = Outcome(state="done")
UNKNOWN = "00000000-0000-4000-8000-000000000000"


async def order(world: World) -> list[str]:
    """The labels of the jobs in the order in which they are offered."""
    return [claim.job.label async for claim in everything(world)]


# The order


async def test_jobs_are_offered_in_the_order_in_which_they_came(world: World):
    for label in "abc":
        await world.submit(label=label)
    assert await order(world) == ["a", "b", "c"]


async def test_a_more_urgent_class_goes_before_any_number(world: World):
    await world.submit(label="background", priority="background", number=-100)
    await world.submit(label="normal", number=-50)
    await world.submit(label="interactive", priority="interactive", number=100)
    assert await order(world) == ["interactive", "normal", "background"]


async def test_lower_numbers_go_first_and_equal_ones_by_age(world: World):
    for label, number in (("late", 2.5), ("first", -1), ("second", 2), ("third", 2)):
        await world.submit(label=label, number=number)
    assert await order(world) == ["first", "second", "third", "late"]


async def test_a_job_for_the_front_has_a_negative_number_and_goes_first(world: World):
    normal = await world.submit(label="normal")
    front = await world.submit(label="front", front=True)
    later = await world.submit(label="later front", front=True)
    assert (normal.number, front.number, later.number) == (1, -2, -3)
    assert await order(world) == ["later front", "front", "normal"]


async def test_a_job_with_a_number_of_its_own_does_not_advance_the_count(world: World):
    await world.submit(number=17, front=True)
    assert (await world.submit()).number == 1


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 10**400])
async def test_a_number_that_cannot_be_compared_is_refused(number: float):
    with pytest.raises(WrongRequest, match="a finite number"):
        new_job(number=number)


# Into the queue


@pytest.mark.parametrize(
    "job_id", ["", "1", "ABCDEF00-0000-4000-8000-000000000000", UNKNOWN.replace("-", ""), f"{{{UNKNOWN}}}", "\0"]
)
async def test_an_id_is_a_uuid_as_it_is_usually_written(job_id: str):
    with pytest.raises(WrongRequest, match="UUID"):
        new_job(id=job_id)


@pytest.mark.parametrize("text", ["nul \0", "half a pair \ud800", "x" * 1001])
@pytest.mark.parametrize("name", ["owner", "client_id", "workflow_id"])
async def test_text_that_no_database_holds_is_refused(name: str, text: str):
    wrong: dict[str, Any] = {name: text}
    with pytest.raises(WrongRequest):
        new_job(**wrong)


async def test_a_label_is_kept_as_far_as_it_can_be(world: World):
    await world.submit(label="boat \0\ud800" + "x" * 3000)
    (job,) = (await world.history.page()).jobs
    assert job.label == "boat ?" + "x" * 1994


@pytest.mark.parametrize("value", [{"a": math.nan}, {"a": {1, 2}}, {"a": 1j}])
async def test_what_is_no_json_is_refused(value: Any):
    with pytest.raises(WrongRequest, match="JSON"):
        Document.of(value)


async def test_json_comes_back_as_it_was(world: World):
    value: dict[str, Any] = {"z": [1, 1.0, True, None, "é\0\ud800"], "a": {}}
    accepted = await world.submit(workflow=Document.of(value), overrides=value, secret=value)
    claim = await world.queue.claim("worker")
    assert claim is not None
    for found in (claim.job.workflow.value(), claim.job.overrides, claim.secret):
        assert repr(found) == repr(value)
    assert (await world.history.job(accepted.id)).workflow == claim.job.workflow


async def test_no_jobs_at_all_can_be_submitted(world: World):
    assert await world.queue.submit([]) == []


async def test_an_id_is_taken_once(world: World):
    accepted = await world.submit(owner="one")
    with pytest.raises(JobExists, match=accepted.id):
        await world.submit(id=accepted.id, owner="other")
    assert (await world.history.job(accepted.id)).owner == "one"


async def test_a_submission_is_taken_as_a_whole_or_not_at_all(world: World):
    twice = new_job()
    with pytest.raises(JobExists):
        await world.queue.submit([new_job(), twice, twice])
    assert (await world.history.counts()).queued == 0
    assert (await world.submit()).number == 1


async def test_a_wrong_submission_does_not_hurt_those_it_is_written_with(world: World):
    taken = (await world.submit()).id
    answers = await asyncio.gather(
        *(world.submit(**({"id": taken} if turn == 5 else {})) for turn in range(10)), return_exceptions=True
    )
    assert [type(answer).__name__ for answer in answers] == ["Accepted"] * 5 + ["JobExists"] + ["Accepted"] * 4
    assert (await world.history.counts()).queued == 10


async def test_processes_that_submit_the_same_id_get_one_job(url: str):
    async with opened(url) as one, opened(url) as other:
        ids = [new_job().id for _ in range(20)]
        submissions = [world.submit(id=job_id) for job_id in ids for world in (one, other)]
        answers = await asyncio.gather(*submissions, return_exceptions=True)
        assert [isinstance(answer, JobExists) for answer in answers].count(True) == len(ids)
        assert (await one.history.counts()).queued == len(ids)


async def test_a_job_is_accepted_though_nobody_waits_for_the_answer(world: World):
    asked = asyncio.create_task(world.submit())
    await asyncio.sleep(0)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    await world.submit()
    assert (await world.history.counts()).queued == 2


async def test_two_hundred_jobs_of_one_workflow_store_it_once(world: World):
    workflow, extra = Document.of({"1": "boat"}), Document.of({"extra_pnginfo": {}})
    batch = [new_job(workflow=workflow, extra=extra, overrides={"1.seed": seed}) for seed in range(200)]
    await world.queue.submit(batch)
    await world.queue.submit([new_job(workflow=Document.of({"1": "boat"}))])
    assert await world.count(document) == 2
    claims = [claim async for claim in everything(world)]
    assert [claim.job.overrides for claim in claims] == [{"1.seed": seed} for seed in range(200)] + [{}]
    assert {claim.job.workflow for claim in claims} == {workflow}


async def test_an_owner_cannot_have_more_unfinished_jobs_than_the_limit(world: World):
    await world.queue.submit([new_job(owner="one"), new_job(owner="one")], 2)
    with pytest.raises(TooManyJobs, match="at most 2 jobs"):
        await world.queue.submit([new_job(owner="one")], 2)
    await world.queue.submit([new_job(owner="other")], 2)
    claim = await world.queue.claim("worker")
    assert claim is not None
    with pytest.raises(TooManyJobs):
        await world.queue.submit([new_job(owner="one")], 2)
    await world.queue.finish(claim.lease, DONE)
    await world.queue.submit([new_job(owner="one")], 2)


async def test_of_many_submissions_at_once_only_as_many_are_taken_as_the_limit_allows(url: str):
    async with opened(url) as one, opened(url) as other:
        for _ in range(10):
            submissions = (world.queue.submit([new_job()], 7) for _ in range(8) for world in (one, other))
            answers = await asyncio.gather(*submissions, return_exceptions=True)
            assert [isinstance(answer, TooManyJobs) for answer in answers].count(True) == 9
            assert await one.queue.cancel_waiting() == 7


# Claims


async def test_a_claim_has_everything_the_worker_needs(world: World):
    accepted = await world.submit(
        owner="owner",
        client_id="client",
        targets=["9"],
        overrides={"1.seed": 5},
        extra=Document.of({"public": 1}),
        secret={"token": "abc"},
    )
    claim = await world.queue.claim("worker")
    assert claim is not None
    assert claim.job.id == claim.lease.job_id == accepted.id
    assert (claim.job.workflow, claim.job.extra) == (WORKFLOW, Document.of({"public": 1}))
    assert (claim.job.targets, claim.job.overrides) == (("9",), {"1.seed": 5})
    assert claim.secret == {"token": "abc"}
    assert (claim.job.state, claim.job.attempts, claim.job.worker) == ("running", 1, "worker")
    assert claim.job.started == world.clock.now


async def test_no_two_workers_get_the_same_job(url: str):
    async with opened(url) as one, opened(url) as other:
        await one.queue.submit([new_job() for _ in range(30)])
        claims = await asyncio.gather(
            *(world.queue.claim(f"worker {turn}") for turn in range(20) for world in (one, other))
        )
        claimed = [claim.job.id for claim in claims if claim is not None]
        assert len(claimed) == len(set(claimed)) == 30


async def test_an_empty_queue_offers_nothing(world: World):
    assert await world.queue.claim("worker") is None


async def test_what_became_of_a_job_is_recorded(world: World):
    claim = await world.claimed()
    world.clock.advance(2.5)
    outcome = Outcome(
        state="done",
        outputs=Document.of({"9": {"images": ["a.png"]}}),
        timings=[NodeTiming("9", "SaveImage", 0.5, 2.0)],
        ran=3,
        reused=4,
        summary={"outputs_count": 1},
        record=Document.of({"meta": {}}),
    )
    await world.queue.finish(claim.lease, outcome)
    job = await world.history.job(claim.job.id)
    assert (job.state, job.seconds, job.ran, job.reused) == ("done", 2.5, 3, 4)
    assert (job.outputs, job.record, job.summary) == (outcome.outputs, outcome.record, outcome.summary)
    assert job.timings == (NodeTiming("9", "SaveImage", 0.5, 2.0),)
    assert (job.created, job.finished) == (claim.job.created, world.clock.now)


async def test_why_a_job_failed_is_recorded(world: World):
    claim = await world.claimed()
    error = JobError(
        type="ValueError", message="no \0", node_id="3", node_class="KSampler", details={"executed": ["1"]}
    )
    await world.queue.finish(claim.lease, Outcome(state="failed", error=error))
    job = await world.history.job(claim.job.id)
    assert (job.state, job.error) == ("failed", error)


async def test_a_secret_is_the_workers_alone_and_forgotten_afterwards(world: World):
    claim = await world.claimed(secret={"token": "hush-hush"})
    assert "hush-hush" not in repr(await world.history.job(claim.job.id)) + repr(await world.history.page())
    await world.queue.finish(claim.lease, Outcome(state="failed"))
    await world.queue.retry(claim.job.id)
    again = await world.queue.claim("worker")
    assert again is not None
    assert again.secret == {}


async def test_nothing_of_a_secret_is_left_in_the_file(tmp_path: Path):
    async with opened(f"sqlite:///{tmp_path / 'jobs.sqlite3'}") as world:
        claim = await world.claimed(secret={"token": "hush-hush"}, owner="owner-ann")
        await world.queue.finish(claim.lease, DONE)
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"owner-ann" in kept and b"hush-hush" not in kept


# Leases


async def test_a_worker_that_is_heard_of_keeps_its_job(world: World):
    claim = await world.claimed()
    for _ in range(10):
        world.clock.advance(20)
        hold = await world.queue.heartbeat(claim.lease)
        assert (hold.expires - world.clock.now, hold.cancelling) == (LEASE, False)
        assert await world.queue.expire() == []
    await world.queue.finish(claim.lease, DONE)


async def test_a_job_whose_worker_is_not_heard_of_is_offered_again_at_its_place(world: World):
    lost = await world.claimed(label="first")
    await world.submit(label="second")
    world.clock.advance(31)
    (taken,) = await world.queue.expire()
    assert (taken.job_id, taken.state) == (lost.job.id, "queued")
    again = await world.queue.claim("another")
    assert again is not None
    assert (again.job.label, again.job.attempts) == ("first", 2)
    assert [loss.cause for loss in again.job.losses] == ["nothing was heard of it for 30 s"]


async def test_what_a_worker_says_of_a_job_it_lost_is_refused(world: World):
    lost = await world.claimed("worker")
    await world.queue.worker_died("worker", "killed")
    again = await world.queue.claim("worker")  # of the same name
    assert again is not None
    for attempt in (
        world.queue.heartbeat(lost.lease),
        world.queue.finish(lost.lease, DONE),
        world.queue.release(lost.lease),
    ):
        await refused(attempt)
    assert (await world.history.job(lost.job.id)).state == "running"
    await world.queue.finish(again.lease, DONE)
    await refused(world.queue.finish(again.lease, Outcome(state="failed")))
    assert (await world.history.job(lost.job.id)).state == "done"


async def test_a_lease_that_was_made_up_is_refused(world: World):
    lease = (await world.claimed()).lease
    for made_up in (Lease(UNKNOWN, "worker", 1), Lease(lease.job_id, "other", 1), Lease(lease.job_id, "worker", 2)):
        await refused(world.queue.finish(made_up, DONE))


async def test_after_three_dead_workers_a_job_has_failed(world: World):
    job_id = (await world.submit(secret={"a": 1})).id
    for turn in range(1, 4):
        assert await world.queue.claim(f"worker {turn}") is not None
        world.clock.advance(1)
        (taken,) = await world.queue.worker_died(f"worker {turn}", f"signal {turn}")
        assert taken.state == ("failed" if turn == 3 else "queued")
    job = await world.history.job(job_id)
    assert job.error == JobError(type="WorkerDied", message="its worker died three times; last: signal 3")
    assert [(loss.worker, loss.cause) for loss in job.losses] == [(f"worker {n}", f"signal {n}") for n in (1, 2, 3)]
    assert (job.seconds, job.attempts) == (1, 3)
    assert await world.queue.claim("worker") is None


async def test_a_dead_worker_costs_only_its_own_jobs_an_attempt(world: World):
    kept, lost = await world.claimed("living"), await world.claimed("dead")
    taken = await world.queue.worker_died("dead", "killed")
    assert [back.job_id for back in taken] == [lost.job.id]
    await world.queue.finish(kept.lease, DONE)


async def test_a_job_that_is_given_back_costs_no_attempt(world: World):
    await world.submit()
    for _ in range(5):
        claim = await world.queue.claim("worker")
        assert claim is not None
        assert claim.job.attempts == 1
        assert (await world.queue.release(claim.lease)).state == "queued"


async def test_a_server_that_died_costs_no_attempt(world: World):
    await world.submit(label="mine")
    await world.submit(label="theirs")
    for name in ("server 1/worker", "server 2/worker"):
        assert await world.queue.claim(name) is not None
    (taken,) = await world.queue.recover("server 1/")
    mine = await world.history.job(taken.job_id)
    assert (mine.label, mine.state, mine.attempts, mine.started) == ("mine", "queued", 0, None)
    assert len(await world.queue.recover()) == 1
    assert await world.states() == ["queued", "queued"]


# Cancelling


async def test_a_job_that_waits_is_cancelled_at_once(world: World):
    waiting = await world.submit(secret={"a": 1})
    assert await world.queue.cancel([waiting.id]) == {waiting.id: "cancelled"}
    assert await world.queue.claim("worker") is None
    job = await world.history.job(waiting.id)
    assert (job.state, job.started, job.finished, job.seconds) == ("cancelled", None, world.clock.now, None)


async def test_a_job_that_runs_is_asked_to_stop(world: World):
    claim = await world.claimed()
    assert await world.queue.cancel([claim.job.id]) == {claim.job.id: "asked"}
    assert (await world.history.job(claim.job.id)).cancelling
    assert (await world.queue.heartbeat(claim.lease)).cancelling
    await world.queue.finish(claim.lease, Outcome(state="cancelled"))
    job = await world.history.job(claim.job.id)
    assert (job.state, job.cancelling) == ("cancelled", False)
    assert await world.queue.cancel([claim.job.id, UNKNOWN, "nonsense \0"]) == {
        claim.job.id: "over",
        UNKNOWN: "unknown",
        "nonsense \0": "unknown",
    }


async def test_a_job_that_was_asked_to_stop_is_not_offered_again(world: World):
    for turn in range(4):
        claim = await world.claimed()
        await world.queue.cancel([claim.job.id])
        match turn:
            case 0:
                (back,) = await world.queue.worker_died("worker", "killed")
            case 1:
                back = await world.queue.release(claim.lease)
            case 2:
                (back,) = await world.queue.recover()
            case _:
                world.clock.advance(31)
                (back,) = await world.queue.expire()
        assert (back.job_id, back.state) == (claim.job.id, "cancelled")


async def test_a_job_that_was_done_before_it_heard_of_the_cancelling_is_done(world: World):
    claim = await world.claimed()
    await world.queue.cancel([claim.job.id])
    await world.queue.finish(claim.lease, DONE)
    assert await world.states() == ["done"]


async def test_all_that_waits_can_be_cancelled(world: World):
    await world.claimed(owner="one")
    await world.queue.submit([new_job(owner=owner) for owner in ("one", "other") for _ in range(600)])
    assert await world.queue.cancel_waiting("one") == 600
    assert (await world.history.counts("one")) == Counts(running=1, cancelled=600)
    assert await world.queue.cancel_waiting() == 600
    assert (await world.history.counts()) == Counts(running=1, cancelled=1200)


# Trying again


@pytest.mark.parametrize("ending", ["failed", "cancelled"])
async def test_a_job_that_did_not_succeed_can_be_tried_again(world: World, ending: Any):
    claim = await world.claimed(label="again")
    await world.queue.finish(claim.lease, Outcome(state=ending, error=JobError(type="A", message="b"), ran=3))
    await world.submit(label="another")
    accepted = await world.queue.retry(claim.job.id, secret={"token": "new"})
    assert (accepted.id, accepted.number, accepted.created) == (claim.job.id, 3, claim.job.created)
    job = await world.history.job(claim.job.id)
    assert (job.state, job.attempts, job.error, job.finished, job.ran) == ("queued", 0, None, None, 0)
    assert await order(world) == ["another", "again"]


async def test_a_job_that_is_tried_again_has_three_new_attempts_and_old_leases_do_not_count(world: World):
    old = await world.claimed()
    await world.queue.finish(old.lease, Outcome(state="failed"))
    await world.queue.retry(old.job.id)
    for turn in range(3):
        claim = await world.queue.claim("worker")
        assert claim is not None
        assert claim.job.attempts == turn + 1
        await refused(world.queue.finish(old.lease, DONE))
        await world.queue.worker_died("worker", "killed")
    assert await world.states() == ["failed"]


async def test_only_what_did_not_succeed_is_tried_again(world: World):
    claim = await world.claimed()
    with pytest.raises(JobNotRetryable, match="is running"):
        await world.queue.retry(claim.job.id)
    await world.queue.finish(claim.lease, DONE)
    with pytest.raises(JobNotRetryable, match="is done"):
        await world.queue.retry(claim.job.id)
    for unknown in (UNKNOWN, "nonsense \0"):
        with pytest.raises(JobNotFound):
            await world.queue.retry(unknown)


async def test_trying_again_is_subject_to_the_limit(world: World):
    cancelled = await world.submit()
    await world.queue.cancel([cancelled.id])
    await world.submit()
    with pytest.raises(TooManyJobs):
        await world.queue.retry(cancelled.id, most_unfinished=1)
    await world.queue.retry(cancelled.id, most_unfinished=2)


# The whole queue


async def test_a_paused_queue_takes_jobs_and_offers_none_even_after_a_restart(url: str):
    async with opened(url) as world:
        running = await world.claimed()
        await world.queue.pause()
    async with opened(url) as world:
        await world.submit()
        assert (await world.queue.mode(), await world.queue.claim("worker")) == ("paused", None)
        await world.queue.finish(running.lease, DONE)
        await world.queue.resume()
        assert await world.queue.mode() == "open"
        assert await world.queue.claim("worker") is not None


async def test_a_queue_that_is_drained_offers_jobs_and_takes_none(world: World):
    cancelled = await world.submit()
    await world.queue.cancel([cancelled.id])
    await world.submit()
    await world.queue.drain()
    with pytest.raises(QueueDraining):
        await world.submit()
    with pytest.raises(QueueDraining):
        await world.queue.retry(cancelled.id)
    assert await world.queue.claim("worker") is not None
    await world.queue.resume()
    await world.submit()


# Owners


async def test_other_owners_jobs_are_as_if_they_were_not_there(world: World):
    theirs = (await world.submit(owner="theirs")).id
    assert await world.queue.cancel([theirs], "mine") == {theirs: "unknown"}
    assert await world.queue.cancel_waiting("mine") == 0
    await world.queue.cancel([theirs], "theirs")
    with pytest.raises(JobNotFound):
        await world.queue.retry(theirs, "mine")
    with pytest.raises(JobNotFound):
        await world.history.job(theirs, "mine")
    assert await world.history.jobs([theirs], "mine") == []
    assert (await world.history.page(JobFilter(owner="mine"))).jobs == ()
    assert await world.history.count(JobFilter(owner="mine")) == 0
    assert await world.history.delete([theirs], "mine") == 0
    assert await world.history.clear("mine") == 0
    assert (await world.history.job(theirs, "theirs")).state == "cancelled"


async def everything(world: World) -> AsyncIterator[Claim]:
    """Claim job after job."""
    while claim := await world.queue.claim("worker"):
        yield claim


async def refused(attempt: Awaitable[Any]) -> None:
    with pytest.raises(LeaseLost, match="does not hold job"):
        await attempt
