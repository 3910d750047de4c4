"""A whole server as a program of its own, with a real worker, under load from this process: HTTP and websockets."""

import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast
from uuid import uuid4

from aiohttp import ClientSession, ClientWebSocketResponse, TCPConnector, WSMsgType
from click import ClickException
from sqlalchemy import update
from sqlalchemy.engine import Connection
from yarl import URL

from server.bench.environment import usual_environment
from server.database.chunks import chunks
from server.database.database import Database
from server.database.documents import Document
from server.database.job_queue import JobQueue
from server.database.jobs import NewJob
from server.database.tables import QUEUED, job
from server.database.tallies import Change, enter
from server.web.files.owner_folders import LOCAL

CLIENTS = 50
"""They submit at the same time, each one job after the other."""
FOLLOWED_NODES = 20
SETTLING_SECONDS = 6.0
"""After its start a server loads its nodes on a thread, which now and then holds up the others."""
FAR_AWAY = 1_000_000
"""From one start to the next, so that no number of one chain occurs in another."""
PATIENCE = 300.0
FLOOR = "import aiohttp.web, pydantic, sqlalchemy, click"
"""What any program needs to import before it can serve HTTP and keep jobs with these libraries."""

Say = Callable[[str], None]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much is asked of the server.

    Args:
        repeats: of everything whose median is told.
        submissions: jobs submitted by all clients together.
        over: jobs in the history, and `waiting`: in the queue, while pages are asked for.
        listeners: websockets that follow one job.
    """

    repeats: int
    submissions: int
    over: int
    waiting: int
    listeners: int


def measure(load: Load, say: Say) -> None:
    """Print medians, rates and the event loop's longest stalls.

    Raises:
        ClickException: the server cannot be started, or does not do what it should.
    """
    asyncio.run(_measure(load, say))


async def _measure(load: Load, say: Say) -> None:
    with TemporaryDirectory() as folder:
        data = Path(folder)
        await _starting(data, load.repeats, say)
        async with _running(data) as server:
            await server.settled()
            say(f"  {'memory of the idle server':44s} {_resident(server.process.pid) / 2**20:9.0f} MiB")
            await _chains(server, load.repeats, say)
            await _submitting(server, load.submissions, "an empty queue", say)
            await _large_body(server, say)
            await _following(server, load.listeners, say)
        await _filled(data, load, say)


# Servers


@dataclass(frozen=True, slots=True)
class _Server:
    process: "subprocess.Popen[str]"
    http: ClientSession
    host: str
    port: int

    async def ask(self, path: str, body: Json | None = None) -> Any:
        """JSON of an answer."""
        method, content = ("GET", None) if body is None else ("POST", json.dumps(body).encode())
        async with self.http.request(method, path, data=content) as answer:
            said = await answer.read()
            if answer.status != 200:
                raise ClickException(f"{method} {path} was answered with {answer.status}: {said.decode()[:500]}")
            return json.loads(said) if said else None

    async def settled(self) -> None:
        """Wait until a worker has run something, and everything is loaded."""
        await self.ask(f"/prompt?wait={PATIENCE:g}", {"prompt": _chain(1)})
        await asyncio.sleep(4)

    async def longest_stall(self) -> float:
        """Of the server's event loop since this was last asked, in seconds."""
        async with self.http.get("/metrics") as answer:
            text = await answer.text()
        found = re.search(r"^latentloom_event_loop_lag_longest_seconds (\S+)", text, re.MULTILINE)
        return float(found[1]) if found else float("nan")


@asynccontextmanager
async def _running(data: Path) -> AsyncGenerator[_Server]:
    process, url = await asyncio.to_thread(_start, data)
    try:
        async with ClientSession(url, connector=TCPConnector(limit=0)) as http:
            address = URL(url)
            yield _Server(process, http, address.host or "", address.port or 0)
    finally:
        await asyncio.to_thread(_stop, process)


def _start(data: Path) -> "tuple[subprocess.Popen[str], str]":
    command = [sys.executable, "-m", "server", "--data", str(data), "serve", "--port", "0", "--cpu"]
    process = subprocess.Popen(
        [*command, "--requests-per-second", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=usual_environment(),
    )
    line = process.stdout.readline() if process.stdout else ""
    found = re.search(r"http://\S+", line)
    if found is None:
        raise ClickException(f"the server does not start: {' '.join(command)}")
    return process, found[0]


def _stop(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGTERM)
    process.wait()
    if process.stdout:
        process.stdout.close()


def _resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# Measurements


async def _starting(data: Path, repeats: int, say: Say) -> None:
    floor: list[float] = []
    ready: list[float] = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", FLOOR], check=True, env=usual_environment())
        floor.append(time.perf_counter() - began)
        began = time.perf_counter()
        async with _running(data) as server:
            await server.ask("/prompt", {"prompt": _chain(1)})
            ready.append(time.perf_counter() - began)
    # The first one makes the database, which only the first start of all does.
    base, median = statistics.median(floor[1:]), statistics.median(ready[1:])
    say("from the start of the process")
    say(f"  {'importing the libraries alone (the floor)':44s} {base * 1000:9.0f} ms   1.00 ×")
    say(f"  {'to the answer to the first POST /prompt':44s} {median * 1000:9.0f} ms {median / base:6.2f} ×")


async def _chains(server: _Server, repeats: int, say: Say) -> None:
    say("chains of trivial nodes, from POST /prompt to execution_success on the websocket")
    for nodes, times in ((300, repeats), (10_000, max(1, repeats // 3))):
        cold: list[float] = []
        again: list[float] = []
        await server.longest_stall()
        for number in range(times):
            workflow = _chain(nodes, start=1 + number)
            cold.append(await _timed_job(server, workflow))
            again.append(await _timed_job(server, workflow))
        stall = await server.longest_stall()
        say(f"  {f'{nodes:,} nodes, new':44s} {statistics.median(cold) * 1000:9.1f} ms, at most {max(cold) * 1000:.0f}")
        say(f"  {'  the same again':44s} {statistics.median(again) * 1000:9.1f} ms, at most {max(again) * 1000:.0f}")
        say(f"  {'  longest stall of the event loop':44s} {stall * 1000:9.1f} ms")


async def _timed_job(server: _Server, workflow: Json) -> float:
    """Seconds from the request to its success."""
    client = uuid4().hex
    body = json.dumps({"prompt": workflow, "client_id": client}).encode()
    async with server.http.ws_connect("/ws", params={"clientId": client}, max_msg_size=0) as socket:
        await socket.receive()
        began = time.perf_counter()
        async with server.http.post("/prompt", data=body) as answer:
            await answer.read()
        async with asyncio.timeout(PATIENCE):
            while (await _next(socket)).get("type") != "execution_success":
                pass
            seconds = time.perf_counter() - began
            # What it made is on the disk, and the worker is free, when the job is in the history.
            while (message := await _next(socket)).get("type") != "executing" or message["data"]["node"] is not None:
                pass
        return seconds


async def _next(socket: ClientWebSocketResponse) -> Json:
    message = await socket.receive()
    if message.type is WSMsgType.TEXT:
        said: Json = json.loads(message.data)
        if said["type"] == "execution_error":
            raise ClickException(f"a job failed: {said['data'].get('exception_message')}")
        return said
    if message.type is WSMsgType.BINARY:
        return {}
    raise ClickException(f"the server hung up: {message.type.name}")


async def _submitting(server: _Server, count: int, beside: str, say: Say) -> None:
    """Each job is on disk before its request is answered, and before its client sends the next."""
    await server.ask("/queue/pause", {})
    await server.longest_stall()
    numbers = iter(range(count))

    async def client() -> None:
        for number in numbers:
            await server.ask("/prompt", {"prompt": _chain(2, start=number)})

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    rate = count / (time.perf_counter() - began)
    stall = await server.longest_stall()
    say(f"{count:,} small jobs submitted by {CLIENTS} clients at once, beside {beside}")
    say(f"  {'accepted and committed':44s} {rate:9.0f} jobs/s")
    say(f"  {'  longest stall of the event loop':44s} {stall * 1000:9.1f} ms")
    await server.ask("/queue", {"clear": True})
    await server.ask("/queue/resume", {})


async def _large_body(server: _Server, say: Say) -> None:
    """A body of about 15 MB, of which somebody else notices nothing."""
    nodes = 100_000
    body = json.dumps({"prompt": _chain(nodes), "extra_data": {"text": "x" * 4_000_000}}).encode()
    await server.longest_stall()
    waits: list[float] = []

    async def somebody_else() -> None:
        while True:
            began = time.perf_counter()
            await server.ask("/health")
            waits.append(time.perf_counter() - began)
            await asyncio.sleep(0.002)

    other = asyncio.create_task(somebody_else())
    began = time.perf_counter()
    async with server.http.post("/validate", data=body) as answer:
        await answer.read()
    seconds = time.perf_counter() - began
    other.cancel()
    stall = await server.longest_stall()
    say(f"a body of {len(body) / 1e6:.0f} MB with {nodes:,} nodes is checked")
    say(f"  {'from the request to the answer':44s} {seconds * 1000:9.0f} ms")
    say(f"  {'  somebody else waits':44s} {statistics.median(waits) * 1000:9.1f} ms, at most {max(waits) * 1000:.0f}")
    say(f"  {'  longest stall of the event loop':44s} {stall * 1000:9.1f} ms")


async def _following(server: _Server, count: int, say: Say) -> None:
    """Many clients are told of one job; one of them never reads."""
    client = uuid4().hex
    deaf, *ears = [_Ear(f"/ws?clientId={client}") for _ in range(count + 1)]
    loop = asyncio.get_running_loop()
    try:
        for some in chunks([deaf, *ears], 50):
            await asyncio.gather(
                *(loop.create_connection(lambda ear=ear: ear, server.host, server.port) for ear in some)
            )
        deaf.hear_nothing()
        alone = await _timed_job(server, _chain(FOLLOWED_NODES, start=10_001))
        await server.longest_stall()
        began = time.perf_counter()
        await server.ask("/prompt", {"prompt": _chain(FOLLOWED_NODES, start=20_002), "client_id": client})
        async with asyncio.timeout(PATIENCE):
            ends = sorted([await ear.heard - began for ear in ears])
        stall = await server.longest_stall()
    finally:
        for ear in (deaf, *ears):
            ear.close()
    say(f"{count:,} websockets follow one job of {FOLLOWED_NODES} nodes, and one more that never reads")
    say(f"  {'the same job with one websocket':44s} {alone * 1000:9.1f} ms")
    say(f"  {'the first hears of the end after':44s} {ends[0] * 1000:9.1f} ms")
    say(f"  {'the median':44s} {statistics.median(ends) * 1000:9.1f} ms {statistics.median(ends) / ends[0]:6.2f} ×")
    say(f"  {'the last':44s} {ends[-1] * 1000:9.1f} ms {ends[-1] / ends[0]:6.2f} ×")
    say(f"  {'  longest stall of the event loop':44s} {stall * 1000:9.1f} ms")


class _Ear(asyncio.Protocol):
    """A websocket that only listens for the end of a job: this process has a thousand of them to serve."""

    END = b'{"type":"execution_success"'

    def __init__(self, path: str) -> None:
        self.heard: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._path = path
        self._last = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        lines = (
            f"GET {self._path} HTTP/1.1",
            "Host: localhost",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        )
        self._transport.write("\r\n".join((*lines, "", "")).encode())

    def data_received(self, data: bytes) -> None:
        if not self.heard.done() and self.END in self._last + data:
            self.heard.set_result(time.perf_counter())
        self._last = data[-len(self.END) :]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.heard.done():
            self.heard.set_exception(ClickException("the server hung up on a websocket"))

    def hear_nothing(self) -> None:
        """Read nothing any more, and stay connected."""
        if self._transport is not None:
            self._transport.pause_reading()

    def close(self) -> None:
        self.heard.cancel()
        if self._transport is not None:
            self._transport.abort()


async def _filled(data: Path, load: Load, say: Say) -> None:
    """The same beside many jobs."""
    counts = f"{load.over:,} jobs that are over and {load.waiting:,} that wait"
    last = await _fill(data / "jobs.sqlite3", load.over, load.waiting)
    async with _running(data) as server:
        await server.ask("/queue/pause", {})
        await asyncio.sleep(SETTLING_SECONDS)
        say(f"beside {counts}")
        stall = await server.longest_stall()
        say(f"  {'longest stall while everything is loaded':44s} {stall * 1000:9.1f} ms")
        first = await server.ask("/jobs")
        paths = {
            "/jobs, the newest": "/jobs",
            "/jobs, the next page": f"/jobs?after={first['pagination']['next']}",
            "/jobs, the oldest": "/jobs?sort_order=asc",
            "/jobs, those that are over": "/jobs?status=completed,failed,cancelled",
            "/jobs, the longest": "/jobs?sort_by=execution_duration",
            "/queue": "/queue?max_items=100",
            "/history": "/history?max_items=100",
            "/jobs/{id}": f"/jobs/{last}",
        }
        for name, path in paths.items():
            times = [await _timed(lambda path=path: server.ask(path)) for _ in range(load.repeats * 3)]
            median = statistics.median(times) * 1000
            say(f"  {f'GET {name}':44s} {median:9.1f} ms, at most {max(times) * 1000:.0f}")
        say(f"  {'  longest stall of the event loop':44s} {await server.longest_stall() * 1000:9.1f} ms")
        await _submitting(server, load.submissions, counts, say)


async def _fill(file: Path, over: int, waiting: int) -> str:
    """Put jobs into a database. Returns the id of the last."""
    database = await Database.open(file)
    queue = JobQueue(database)
    made = 0

    async def submit(count: int) -> str:
        nonlocal made
        last = ""
        for some in chunks(range(count), 5000):
            jobs: list[NewJob] = []
            for _ in some:
                made += 1
                jobs.append(NewJob(workflow=Document.of(_chain(2, start=made)), owner=LOCAL, label=f"the {made}th"))
            last = (await queue.submit(jobs))[-1].id
        return last

    def end(connection: Connection) -> None:
        now = database.now()
        ended = update(job).where(QUEUED)
        connection.execute(ended.values(state="done", started=now, finished=now, duration=job.c.seq % 100_000))
        enter(connection, Change({(LOCAL, "queued"): -over, (LOCAL, "done"): over}))

    try:
        await queue.cancel_waiting()
        await submit(over)
        await database.write(end)
        return await submit(waiting)
    finally:
        await database.close()
        # The system would otherwise be busy with this while others wait for their few bytes to reach the disk.
        await asyncio.to_thread(os.sync)


async def _timed(act: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await act()
    return time.perf_counter() - began


def _chain(nodes: int, start: int = 0) -> Json:
    """So many nodes one after the other, and one that shows what comes of them; another start shares nothing."""
    chain: Json = {"0": {"class_type": "Calculate", "inputs": {"a": start * FAR_AWAY + 0.5, "operation": "+", "b": 1}}}
    for at in range(1, nodes):
        chain[str(at)] = {"class_type": "Calculate", "inputs": {"a": [str(at - 1), 0], "operation": "+", "b": 1}}
    shown = {"class_type": "PreviewAny", "inputs": {"source": [str(nodes - 1), 0]}}
    return {**chain, "shown": shown}
