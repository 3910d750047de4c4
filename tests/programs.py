"""`latentloom serve` as a program of its own, with nodes that tests use."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from tests.servers import OWN_NODES

ROOT = Path(__file__).parent.parent
COMMAND = (sys.executable, "-m", "server")
OVER = "completed,failed,cancelled"


@dataclass
class Program:
    """A server that runs as a program of its own."""

    process: "subprocess.Popen[str]"
    url: str

    def ask(self, path: str, body: Any = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        with urlopen(Request(self.url + path, data=content), timeout=120) as answer:
            return json.load(answer)

    def count(self, status: str) -> int:
        return self.ask(f"/jobs?status={status}&limit=1")["pagination"]["total"]

    def until_over(self, count: int) -> int:
        """Wait until so many jobs are over. Returns how many are."""
        for _ in range(6000):
            over = self.count(OVER)
            if over >= count:
                return over
            time.sleep(0.02)
        raise TimeoutError(f"{self.count(OVER)} of {count} jobs are over")

    def kill(self) -> None:
        """As by a power cut: the server and its workers."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def program(data: Path, *options: str) -> Generator[Program]:
    own = [option for path in OWN_NODES for option in ("--nodes", str(path))]
    command = [*COMMAND, "--data", str(data), *own, "serve", "--port", "0", "--cpu", *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, line
        yield Program(process, found[0])
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
