from datetime import timedelta
from typing import Any

import pytest

from server.database.errors import WrongRequest
from server.database.jobs import NewWebhook, Outcome
from server.database.webhooks import WebhookCall, WebhookStatus
from tests.databases import World, opened

pytestmark = pytest.mark.anyio

HOOK = NewWebhook(url="http://localhost/done", secret="s")
DONE = Outcome(state="done")


async def test_nobody_is_told_before_the_job_is_over(world: World):
    claim = await world.claimed(webhook=HOOK)
    await world.submit()
    assert await world.webhooks.take() == []
    await world.queue.finish(claim.lease, DONE)
    assert await world.webhooks.take() == [WebhookCall(claim.job.id, HOOK.url, "s", 1)]


async def test_somebody_is_told_however_a_job_ends(world: World):
    ids = [(await world.submit(webhook=HOOK)).id for _ in range(4)]
    await world.queue.cancel([ids[0]])
    for _ in range(3):
        await world.queue.claim("worker")
        await world.queue.worker_died("worker", "killed")
    claim = await world.queue.claim("worker")
    assert claim is not None
    await world.queue.finish(claim.lease, Outcome(state="failed"))
    await world.queue.cancel_waiting()
    assert {call.job_id for call in await world.webhooks.take()} == set(ids)


async def test_somebody_may_want_to_hear_of_some_endings_alone(world: World):
    hook = NewWebhook(url=HOOK.url, endings=("failed", "cancelled"))
    ids = [(await world.submit(webhook=hook)).id for _ in range(3)]
    await world.queue.cancel(ids[:1])
    for state in ("failed", "done"):
        claim = await world.queue.claim("worker")
        assert claim is not None
        await world.queue.finish(claim.lease, Outcome(state=state))
    assert {call.job_id for call in await world.webhooks.take()} == {*ids[:2]}


async def test_a_call_is_handed_out_once_until_patience_ends(url: str):
    async with opened(url) as one, opened(url) as other:
        claim = await one.claimed(webhook=HOOK)
        other.clock.now = one.clock.now
        await one.queue.finish(claim.lease, DONE)
        assert len(await one.webhooks.take(patience=timedelta(seconds=60))) == 1
        assert await other.webhooks.take() == []
        other.clock.advance(60)
        (again,) = await other.webhooks.take()
        assert again.attempt == 2


async def test_who_was_told_is_not_told_again(world: World):
    claim = await world.claimed(webhook=HOOK)
    await world.queue.finish(claim.lease, DONE)
    (call,) = await world.webhooks.take()
    await world.webhooks.delivered(call)
    world.clock.advance(1e6)
    assert await world.webhooks.take() == []
    assert await world.webhooks.status(call.job_id) == WebhookStatus(HOOK.url, "delivered", 1, None, None)


async def test_who_could_not_be_told_is_tried_later_and_then_given_up(world: World):
    claim = await world.claimed(webhook=HOOK)
    await world.queue.finish(claim.lease, DONE)
    (call,) = await world.webhooks.take()
    await world.webhooks.failed(call, "500 \0\ud800", timedelta(seconds=10))
    assert await world.webhooks.take() == []
    status = await world.webhooks.status(call.job_id)
    assert status and (status.state, status.failure) == ("waiting", "500 ?")
    world.clock.advance(10)
    (second,) = await world.webhooks.take()
    await world.webhooks.failed(call, "late news of the first attempt", None)
    await world.webhooks.failed(second, "404", None)
    world.clock.advance(1e6)
    assert await world.webhooks.take() == []
    assert await world.webhooks.status(call.job_id) == WebhookStatus(HOOK.url, "abandoned", 2, None, "404")


async def test_a_job_that_is_tried_again_is_told_of_again(world: World):
    claim = await world.claimed(webhook=HOOK)
    await world.queue.finish(claim.lease, Outcome(state="failed"))
    (call,) = await world.webhooks.take()
    await world.webhooks.delivered(call)
    await world.queue.retry(call.job_id)
    assert await world.webhooks.take() == []
    again = await world.queue.claim("worker")
    assert again is not None
    await world.queue.finish(again.lease, DONE)
    assert [call.attempt for call in await world.webhooks.take()] == [1]


async def test_the_webhook_of_somebody_else_is_not_shown(world: World):
    job_id = (await world.submit(owner="theirs", webhook=HOOK)).id
    assert await world.webhooks.status(job_id, "mine") is None
    assert await world.webhooks.status("nonsense") is None
    assert await world.webhooks.status(job_id, "theirs") is not None


@pytest.mark.parametrize(
    "wrong",
    [{"url": "\0"}, {"url": "x" * 2001}, {"url": "a", "secret": "\ud800"}, {"url": "a", "endings": ("running",)}],
)
async def test_a_webhook_that_cannot_be_stored_is_refused(wrong: dict[str, Any]):
    with pytest.raises(WrongRequest):
        NewWebhook(**wrong)
