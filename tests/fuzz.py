"""Requests made up from the server's own description, sent to a whole server: `python -m tests.fuzz --requests 10000`.

Half of them are as the description has it, the other half are not. Whatever is sent, the answer is no 5xx, and one that
the description knows: its status, its kind and its shape.
"""

import sys
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import anyio.from_thread
import click
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.failures import Failure, FailureGroup

from server.database.api_keys import ApiKeys
from server.database.database import Database
from tests.servers import PATIENCE, Client, serving
from tests.web_site import bearer
from tests.workers import chain

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
LONGEST_URL = 8000
library: Any = schemathesis
"""Its own types say nothing of cases and operations."""


@dataclass(slots=True)
class Target:
    """A server, what every request to it says, and what came of them."""

    client: Client
    portal: anyio.from_thread.BlockingPortal
    headers: dict[str, str]
    statuses: Counter[int] = field(default_factory=Counter[int])
    faults: dict[str, str] = field(default_factory=dict[str, str])
    """The first of each kind."""

    def fuzz(self, count: int, number: int = 0) -> None:
        """Send about so many requests, the same ones for the same number."""
        url = str(self.client.http.make_url("/"))
        document = requests.get(f"{url}openapi.json", headers=self.headers, timeout=PATIENCE).json()
        operations = [found.ok() for found in library.openapi.from_dict(document).get_all_operations()]
        share = max(1, count // len(operations) // len(GenerationMode))
        wanted = self.statuses.total() + count
        with requests.Session() as session:
            # Some operations take nothing, and so nothing that is wrong: others have more turns then.
            while self.statuses.total() < wanted:
                for operation, mode in product(operations, GenerationMode):
                    self._fuzz(operation, mode, min(share, wanted - self.statuses.total()), number, url, session)
                number += 1

    def _fuzz(
        self, operation: Any, mode: GenerationMode, count: int, number: int, url: str, session: requests.Session
    ) -> None:
        if count < 1:
            return

        checks = library.checks.CHECKS.get_by_names(CHECKS)

        @seed(number)
        @settings(
            max_examples=count,
            phases=[Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def send(case: Any) -> None:
            answer = case.call(base_url=url, session=session, headers=self.headers, timeout=PATIENCE)
            self.statuses[answer.status_code] += 1
            if len(str(answer.request.url)) > LONGEST_URL and answer.status_code == 400:
                return  # what is no HTTP/1.1 to aiohttp, it refuses itself, and without JSON
            try:
                case.validate_response(answer, checks=checks)
            except FailureGroup as group:
                for failure in group.exceptions:
                    self._note(operation, failure, case.as_curl_command())
            except Failure as failure:
                self._note(operation, failure, case.as_curl_command())

        with suppress(Unsatisfiable):  # of what is not as described: some operations take nothing
            send()

    def _note(self, operation: Any, failure: Failure, command: str) -> None:
        self.faults.setdefault(f"{operation.label}: {failure.title}", f"{failure.message}\n{command}")

    def check(self) -> None:
        """A job still runs as ever, and nothing else waits."""
        self.portal.call(self._check)

    async def _check(self) -> None:
        http = self.client.http
        http.session.headers.update(self.headers)
        await self.client.post("/queue/resume")
        assert (await self.client.run(chain("Twist")))["status"] == "completed"
        assert (await self.client.get("/prompt"))["exec_info"] == {"queue_remaining": 0}


@asynccontextmanager
async def _served(folder: Path, keys: bool) -> AsyncGenerator[tuple[Client, dict[str, str]]]:
    """A server, and the headers that open it."""
    headers: dict[str, str] = {}
    database = await Database.open(folder / "jobs.sqlite3")
    if keys:
        headers = bearer((await ApiKeys(database).create("ann", ["admin"])).text)
    await database.close()
    async with serving(folder) as client:
        yield client, headers


@contextmanager
def target(folder: Path, keys: bool = False) -> Generator[Target]:
    """A whole server on a thread of its own.

    Args:
        keys: whether it asks for a key.
    """
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(_served(folder, keys)) as (client, headers),
    ):
        yield Target(client, portal, headers)


@click.command(help=__doc__)
@click.option("--requests", "count", type=click.IntRange(min=1), default=10_000, show_default=True)
@click.option("--seed", "number", type=int, default=0, show_default=True)
def main(count: int, number: int) -> None:
    """Fuzz a server without keys and one with keys, with half of the requests each."""
    wrong = False
    for keys in (False, True):
        with tempfile.TemporaryDirectory() as folder, target(Path(folder), keys) as server:
            server.fuzz(count // 2, number)
            server.check()
        total = sum(server.statuses.values())
        print(f"{'with' if keys else 'without'} keys: {total} requests, {dict(sorted(server.statuses.items()))}")
        for fault, example in server.faults.items():
            print(f"{fault}\n{example}\n", file=sys.stderr)
        wrong |= bool(server.faults)
    sys.exit(wrong)


if __name__ == "__main__":
    main()
