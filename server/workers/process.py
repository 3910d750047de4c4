"""A worker's process: started, spoken with, ended."""

import asyncio
import os
import signal
import socket
import sys
import sysconfig
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from server.workers.devices import environment
from server.workers.framing import HEADER_BYTES, read_header
from server.workers.messages import FROM_WORKER, TO_WORKER, FromWorker, ToWorker
from server.workers.printed import Printed

ROOT = Path(__file__).resolve().parents[2]
"""Where this program's packages are."""
READ_BYTES = 1 << 20
DUMP_SECONDS = 2.0
"""For how long a process that hangs may tell where it does, before it is killed."""


class WorkerProcess:
    """One process and the socket to it. Made by `start`."""

    def __init__(
        self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, printed: Printed
    ) -> None:
        self.pid = process.pid
        self.printed = printed
        self._process = process
        self._reader = reader
        self._writer = writer

    @staticmethod
    async def start(name: str, device: str, job_id: Callable[[], str | None]) -> "WorkerProcess":
        """Start a process. Raises OSError, NoDevice.

        Args:
            job_id: tells which job the worker has, for the log of what it prints.
        """
        env = _environment(device)
        ours, theirs = socket.socketpair()
        listening, printing = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # what lies in the current folder is not this program
                "-m",
                "server.workers.worker",
                f"--channel={theirs.fileno()}",
                name,
                stdin=DEVNULL,
                stdout=printing,
                stderr=printing,
                pass_fds=[theirs.fileno()],
                env=env,
                # Ctrl-C in a terminal is for the server, which tells its workers; and what nodes start ends with them.
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            os.close(listening)
            raise
        finally:
            theirs.close()
            os.close(printing)
        printed = Printed(listening, name, job_id)
        try:
            ours.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=ours, limit=READ_BYTES)
        except BaseException:
            process.kill()
            await process.wait()
            raise
        return WorkerProcess(process, reader, writer, printed)

    def say(self, message: ToWorker) -> None:
        """Say something to it. If it is gone, nobody hears it."""
        self._writer.write(TO_WORKER.frame([message]))

    async def hear(self) -> list[FromWorker] | None:
        """The next messages; None when there will be no more. Raises BadFrame."""
        try:
            sizes = read_header(await self._reader.readexactly(HEADER_BYTES))
            return FROM_WORKER.messages(sizes, await self._reader.readexactly(sizes.body))
        except (asyncio.IncompleteReadError, OSError):
            return None

    async def ended(self) -> int:
        """Wait until the process has ended. Its exit code; negative, the signal that ended it."""
        return await self._process.wait()

    def kill(self) -> None:
        """End it at once, with every program that its nodes have started."""
        self._signal_all("SIGKILL")

    async def kill_hanging(self) -> None:
        """End a process that hangs, which first may print where."""
        self._signal("SIGABRT")
        with suppress(TimeoutError):
            await asyncio.wait_for(self.ended(), DUMP_SECONDS)
        self.kill()

    def close(self) -> None:
        """Hang up."""
        self._writer.transport.abort()

    def _signal(self, name: str) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(getattr(signal, name, signal.SIGTERM))

    def _signal_all(self, name: str) -> None:
        if sys.platform == "win32":
            self._signal(name)
            return
        # Also when it has ended: those it has started are of its group still.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, getattr(signal, name))


def _environment(device: str) -> dict[str, str]:
    """The server's own, and this very code to be found by whom it starts, installed or not."""
    env = environment(device, os.environ)
    if str(ROOT) != sysconfig.get_path("purelib"):
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), env.get("PYTHONPATH"))))
    return env
