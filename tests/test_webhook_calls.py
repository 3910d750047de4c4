"""Webhooks from a whole server to receivers on this machine: signed, tried again, and kept while nobody answers."""

import base64
import hmac
import json
import socket
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from server.web import messenger
from server.web.job_forms import JobOver
from server.web.options import WebOptions
from server.web.public_addresses import PrivateAddress, PublicResolver, is_public, refuse_private
from server.web.signatures import SECRET_FILE, kept_secret, signed_headers
from tests.servers import PATIENCE, Client, serving
from tests.workers import alone, chain

pytestmark = pytest.mark.anyio

OPEN = WebOptions(allow_private_webhooks=True)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass
class Receiver:
    """Somebody who is told, and answers with these statuses in turn; with the last of them from then on."""

    answers: list[int] = field(default_factory=lambda: [204])
    calls: list[tuple[Mapping[str, str], bytes]] = field(default_factory=list[tuple[Mapping[str, str], bytes]])
    url: str = ""

    async def hear(self, request: web.Request) -> web.Response:
        self.calls.append((request.headers.copy(), await request.read()))
        status = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return web.Response(status=status, headers={"Location": "/elsewhere"} if status == 302 else {})

    async def until(self, count: int) -> list[Any]:
        """What was told, when so much was."""
        with anyio.fail_after(PATIENCE):
            while len(self.calls) < count:
                await anyio.sleep(0.01)
        return [json.loads(body) for _, body in self.calls]


@asynccontextmanager
async def receiving(*answers: int, port: int | None = None) -> AsyncGenerator[Receiver]:
    receiver = Receiver([*answers] or [204])
    application = web.Application()
    application.router.add_post("/{path:.*}", receiver.hear)
    async with TestServer(application, port=port) as server:
        receiver.url = str(server.make_url("/done"))
        yield receiver


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(messenger, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(messenger, "FIRST_PAUSE", timedelta(milliseconds=20))


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Client]:
    async with serving(tmp_path_factory.mktemp("calling"), web=OPEN) as client:
        yield client


async def hook(client: Client, job_id: str, *states: str) -> Any:
    """What a job says of its webhook, when that is in one of these states."""
    with anyio.fail_after(PATIENCE):
        while True:
            told = (await client.get(f"/jobs/{job_id}"))["webhook"]
            if told["state"] in states:
                return told
            await anyio.sleep(0.02)


def verifies(headers: Mapping[str, str], body: bytes, key: bytes) -> bool:
    """What a receiver does, going by the words of the specification."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.new(key, signed, "sha256").digest()).decode()
    recent = abs(time.time() - int(headers["webhook-timestamp"])) < 300
    return recent and hmac.compare_digest(expected, headers["webhook-signature"])


async def test_a_signature_is_the_one_of_the_specification():
    headers = signed_headers(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", [None, SECRET, "a-secret-without-a-prefix"])
async def test_the_end_of_a_job_is_told_and_signed(client: Client, secret: str | None):
    async with receiving() as receiver:
        webhook = {"url": receiver.url} | ({"secret": secret} if secret else {})
        job_id = await client.submit(chain("Twist", length=4), webhook=webhook)
        (told,) = await receiver.until(1)
    assert JobOver.model_validate(told).type == "job.completed"
    assert (told["type"], told["data"]["prompt_id"], told["data"]["status"]) == ("job.completed", job_id, "completed")
    assert told["data"]["outputs"]["3"]["text"][0].startswith("5 in ")
    data = client.service.desk.library.load().folders.data
    kept = base64.b64decode(kept_secret(data).removeprefix("whsec_"))
    key = {None: kept, SECRET: base64.b64decode(SECRET.removeprefix("whsec_"))}.get(secret, str(secret).encode())
    ((headers, body),) = receiver.calls
    assert verifies(headers, body, key)
    assert not verifies(headers, body + b" ", key)
    assert (await hook(client, job_id, "delivered"))["attempts"] == 1


async def test_a_receiver_that_fails_is_told_again_with_the_same_id(client: Client):
    async with receiving(500, 503, 200) as receiver:
        job_id = await client.submit(chain(), webhook={"url": receiver.url})
        told = await receiver.until(3)
        assert await hook(client, job_id, "delivered")
    assert told[0] == told[1] == told[2]
    assert len({headers["webhook-id"] for headers, _ in receiver.calls}) == 1


@pytest.mark.parametrize(("answer", "said"), [(410, "410"), (302, "redirections are not followed")])
async def test_what_will_not_be_is_given_up(client: Client, answer: int, said: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(messenger, "MOST_ATTEMPTS", 2)
    async with receiving(answer) as receiver:
        job_id = await client.submit(chain(), webhook={"url": receiver.url})
        told = await hook(client, job_id, "abandoned")
    assert said in told["failure"] and told["next_attempt"] is None
    assert len(receiver.calls) == told["attempts"] == (1 if answer == 410 else 2)


async def test_a_dead_receiver_disturbs_no_job_and_no_other_receiver(client: Client):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # which takes connections, and never says a word
        dead = {"url": f"http://127.0.0.1:{silent.getsockname()[1]}/"}
        refusing = {"url": f"http://127.0.0.1:{unused_port()}/"}
        async with receiving() as receiver:
            for each in (dead, refusing, {"url": receiver.url}):
                assert (await client.run(chain(), webhook=each))["status"] == "completed"
            await receiver.until(1)


async def test_a_batch_tells_of_each_of_its_jobs_and_of_the_endings_that_were_asked_for(client: Client):
    async with receiving() as receiver:
        webhook = {"url": receiver.url, "events": ["failed"]}
        assert (await client.run(chain(), webhook=webhook))["status"] == "completed"
        assert (await client.run(chain("Fail"), webhook=webhook))["status"] == "failed"
        batch = {"prompt": chain(), "sets": [{"Spin.length": 7}, {"Spin.length": 8}]}
        ids = [
            job["prompt_id"]
            for job in (await client.post("/batch", batch | {"webhook": {"url": receiver.url}}))["jobs"]
        ]
        told = await receiver.until(3)
    assert [each["type"] for each in told] == ["job.failed", "job.completed", "job.completed"]
    assert "error" in told[0]["data"] and {each["data"]["prompt_id"] for each in told[1:]} == {*ids}


async def test_what_was_not_told_is_told_after_a_restart(tmp_path: Path):
    port = unused_port()
    async with serving(tmp_path, web=OPEN) as client:
        job_id = await client.submit(chain(), webhook={"url": f"http://127.0.0.1:{port}/"})
        await client.until(job_id, "completed")
        with anyio.fail_after(PATIENCE):
            while not (await client.get(f"/jobs/{job_id}"))["webhook"]["failure"]:
                await anyio.sleep(0.02)
    async with receiving(port=port) as receiver, serving(tmp_path, web=OPEN) as client:
        (told, *_) = await receiver.until(1)
        assert told["data"]["prompt_id"] == job_id
        assert (await hook(client, job_id, "delivered"))["attempts"] > 1


@pytest.mark.parametrize(
    ("webhook", "said"),
    [
        ({"url": "http://127.0.0.1:1/"}, "--allow-private-webhooks"),
        ({"url": "http://[::ffff:10.0.0.1]/"}, "--allow-private-webhooks"),
        ({"url": "http://localhost/"}, "--allow-private-webhooks"),
        ({"url": "ftp://example.com/"}, "webhook.url"),
        ({"url": "http://user:password@example.com/"}, "webhook.url"),
        ({"url": "https://example.com/", "events": ["started"]}, "webhook.events"),
        ({"url": "https://example.com/", "secret": "short"}, "webhook.secret"),
    ],
)
async def test_a_receiver_that_cannot_be_is_refused_with_the_job(tmp_path: Path, webhook: Any, said: str):
    async with serving(tmp_path) as client:
        answer = await client.post("/prompt", {"prompt": alone("Tick"), "webhook": webhook}, expected=400)
        assert said in json.dumps(answer["error"])
        assert (await client.get("/jobs"))["jobs"] == []


async def test_a_name_that_leads_into_a_private_network_is_found_out_when_it_is_looked_up():
    resolver = PublicResolver()
    for name in ("localhost", "127.1", "2130706433"):
        with pytest.raises(PrivateAddress, match="--allow-private-webhooks"):
            await resolver.resolve(name, 80)
    await resolver.close()


def test_only_addresses_of_the_internet_are_public():
    public = ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822", "::ffff:93.184.216.34"]
    private = ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"]
    private += ["224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1"]
    private += ["::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::", "nonsense"]
    assert [address for address in (*public, *private) if is_public(address)] == public
    refuse_private("https://example.com/")


def test_the_secret_is_made_once_and_for_its_owner_alone(tmp_path: Path):
    assert kept_secret(tmp_path) == kept_secret(tmp_path)
    assert (tmp_path / SECRET_FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [SECRET_FILE]
    (tmp_path / SECRET_FILE).write_text("short")
    with pytest.raises(ValueError, match="delete it"):
        kept_secret(tmp_path)
