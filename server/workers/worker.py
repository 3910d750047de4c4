"""A worker process: `python -m server.workers.worker`, started by the server.

Its main thread does what the server says, one thread runs jobs, one sends. It ends when it is told to, by a message or
a signal, after the present step; and when the server is gone. Whatever is printed in it is output like any other and
goes where the server listens to it.
"""

import argparse
import faulthandler
import gc
import io
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Thread, Timer
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from server.workers.channel import Channel
from server.workers.framing import BadFrame
from server.workers.memory import be_killed_first, resident_bytes
from server.workers.messages import (
    Alive,
    CancelJob,
    CannotStart,
    Configure,
    Describe,
    Described,
    Free,
    FromWorker,
    Inspect,
    Inspected,
    Leaving,
    Logged,
    Ready,
    Refused,
    ResidentModel,
    RunJob,
    Stop,
    ToWorker,
)
from server.workers.outbox import Outbox

if TYPE_CHECKING:
    from nodes.engine import Engine
    from server.workers.runner import Runner

ROOT = Path(__file__).resolve().parents[2]
ORPHAN_SECONDS = 10.0
"""For how long the present step may go on when the server is gone."""
FLUSH_SECONDS = 10.0
LONGEST_RECORD = 64 * 1024
"""Characters of a log record that are passed on."""
UNUSABLE = 3
"""The exit code of a worker that could not start and has said why."""

COLLECTED_AFTER = 20_000
"""New objects after which the collector looks through them, those of a few hundred nodes; Python's number is 700."""
HEAVY = (
    "torch",
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.models.autoencoders.autoencoder_kl",
    "transformers.models.clip.modeling_clip",
    "nodes.text_encoding",
    "nodes.trajectory",
    "nodes.materialise",
    "nodes.autoencoding",
)
"""What the first picture needs."""

log = logging.getLogger("latentloom.worker")


class _Leave(Exception):
    """Somebody sent a signal."""


class Worker:
    """What the process does from the first message on."""

    def __init__(self, channel: Channel, order: Configure) -> None:
        self._channel = channel
        self._order = order
        self._leaving = False
        self._receiving = False
        self._engine: Engine | None = None
        self._runner: Runner | None = None
        self._outbox = Outbox(
            channel.send, self._beat, order.options.heartbeat, 1 / max(order.options.progress_per_second, 0.1)
        )

    def live(self) -> NoReturn:
        """Work until it is over, and end the process."""
        for kind in (signal.SIGTERM, signal.SIGINT):
            signal.signal(kind, self._ask_to_leave)
        self._log_to_server()
        engine = self._engine = self._start()
        from server.workers.runner import Runner

        runner = self._runner = Runner(engine, self._outbox, self._alive, self._order.options.previews)
        self._outbox.put(Ready(nodes=len(engine.catalogue)))
        if self._order.options.warm_up:
            Thread(target=warm_up, args=(engine,), daemon=True).start()
        self._serve(engine, runner)
        self._outbox.put(Leaving())
        runner.hand_back()
        runner.close()
        self._end(engine, 0)

    # At the start

    def _start(self) -> "Engine":
        """Load the engine and all nodes, or say why that is not possible."""
        from graph.catalogue import DuplicateNode, OwnNodesError
        from server.workers.devices import NoDevice

        try:
            return _engine(self._order)
        except (OwnNodesError, DuplicateNode, NoDevice) as error:
            log.error("%s", error, exc_info=error.__cause__)
            message = str(error)
        except Exception as error:
            log.error("the engine cannot be loaded", exc_info=True)
            message = f"the engine cannot be loaded: {type(error).__name__}: {error}"
        self._outbox.put(CannotStart(message=message))
        self._outbox.flush(FLUSH_SECONDS)
        _end_process(UNUSABLE)

    def _log_to_server(self) -> None:
        root = logging.getLogger()
        root.handlers = [_ToServer(self._outbox.tell, lambda: self._runner.job_id if self._runner else None)]
        root.setLevel(max(self._order.options.log_level, logging.WARNING))
        logging.getLogger("latentloom").setLevel(self._order.options.log_level)
        logging.captureWarnings(True)

    # What the server says

    def _serve(self, engine: "Engine", runner: "Runner") -> None:
        """Do what the server says until it is time to leave."""
        try:
            while (messages := self._next()) is not None:
                for message in messages:
                    self._obey(message, engine, runner)
        except _Leave:
            return
        except BadFrame as error:
            log.error("the server said something that is none of its messages: %s", error)
        if not self._leaving:
            # Nobody will ever know what comes of the present job; its results are in the store all the same.
            timer = Timer(ORPHAN_SECONDS, partial(os._exit, 0))
            timer.daemon = True
            timer.start()

    def _next(self) -> list[ToWorker] | None:
        """The next messages; None when it is time to leave."""
        self._receiving = True
        if self._leaving:
            return None
        messages = self._channel.receive()
        self._receiving = False
        return messages

    def _ask_to_leave(self, number: int, frame: FrameType | None) -> None:
        self._leaving = True
        if self._receiving:  # not in the middle of anything else
            self._receiving = False
            raise _Leave

    def _obey(self, message: ToWorker, engine: "Engine", runner: "Runner") -> None:
        match message:
            case RunJob():
                runner.begin(message.job)
            case CancelJob():
                runner.cancel(message.job_id)
            case Free():
                runner.free(message)
            case Describe():
                self._answer(message.request, partial(_described, engine, message.request))
            case Inspect():
                self._answer(message.request, partial(_inspected, engine, self._order.device, message.request))
            case Stop():
                self._leaving = True
            case Configure():
                raise BadFrame("a worker cannot become another one")

    def _answer(self, request: int, make: Callable[[], FromWorker]) -> None:
        """Answer on a thread of its own: folders may be slow, and a job is to be stopped at once all the same."""

        def answer() -> None:
            try:
                message = make()
            except Exception as error:
                log.warning("a request came to nothing", exc_info=True)
                message = Refused(request=request, message=f"{type(error).__name__}: {error}")
            self._outbox.put(message)

        Thread(target=answer, daemon=True).start()

    def _beat(self) -> Alive:
        # A worker that hangs is killed by the server. If that is gone too, it ends by itself.
        faulthandler.dump_traceback_later(self._order.orphan_seconds, exit=True)
        return self._alive()

    def _alive(self) -> Alive:
        engine = self._engine
        models = [] if engine is None else engine.models.resident
        return Alive(rss=resident_bytes(), models=tuple(ResidentModel(name, nbytes) for name, nbytes in models))

    # At the end

    def _end(self, engine: "Engine", code: int) -> NoReturn:
        engine.store.flush()
        self._outbox.flush(FLUSH_SECONDS)
        self._channel.close()
        _end_process(code)


class _ToServer(logging.Handler):
    """Passes log records on."""

    def __init__(self, tell: Callable[[FromWorker], None], job_id: Callable[[], str | None]) -> None:
        super().__init__()
        self._tell = tell
        self._job_id = job_id

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = self.format(record)
            shown = message if len(message) <= LONGEST_RECORD else f"{message[:LONGEST_RECORD]}…"
            self._tell(Logged(level=record.levelno, logger=record.name, message=shown, job_id=self._job_id()))
        except Exception:  # of whatever was logged
            self.handleError(record)


def _engine(order: Configure) -> "Engine":
    from nodes import pickles
    from nodes.engine import Engine, full_catalogue, usual_folders, usual_store
    from server.workers.devices import pool_device

    options = order.options
    pickles.allow(options.allow_pickle)
    # Absolute, for a node may change the current folder.
    folders = usual_folders(options.data.absolute(), options.output and options.output.absolute())
    catalogue = full_catalogue(folders, options.own_nodes)
    store = usual_store(folders, options.store, options.store_bytes)
    device = pool_device(order.device)
    return Engine(
        folders,
        catalogue=catalogue,
        store=store,
        precision=options.precision,
        device=device,
        prepared_bytes=options.prepared_bytes,
    )


def warm_up(engine: "Engine") -> None:
    """Do what the first jobs would have to wait for: look at the code of all nodes, import what pictures need."""
    from graph.keys import node_identity

    for node in engine.catalogue.values():
        with suppress(Exception):  # which a job will meet again, and tell
            node_identity(node)
    from graph.collector import collector_paused

    with collector_paused():
        for module in HEAVY:
            import_module(module)
    # What was imported stays. Looking through it again and again takes longer than most jobs of a few hundred nodes.
    gc.freeze()
    gc.set_threshold(COLLECTED_AFTER, 20, 20)


def _described(engine: "Engine", request: int) -> Described:
    """What `/object_info` says. A node that cannot be described is left out."""
    from graph.describe import node_info

    entries: list[str] = []
    for name, node in engine.catalogue.items():
        try:
            info = json.dumps(node_info(node, engine.folders), allow_nan=False)
        except Exception:  # of somebody's own nodes
            log.warning("the node %s cannot be described", name, exc_info=True)
        else:
            entries.append(f"{json.dumps(name)}:{info}")
    return Described(request=request, content=f"{{{','.join(entries)}}}".encode())


def _inspected(engine: "Engine", device: str, request: int) -> Inspected:
    from server.workers.devices import inspect, inspect_cpu

    # The processor can be looked at without torch.
    return Inspected(request=request, device=inspect_cpu() if device == "cpu" else inspect(engine.models.device))


def _end_process(code: int) -> NoReturn:
    """End at once: threads that nodes have left behind are not waited for, nor does torch take itself apart."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _prepare() -> None:
    """What is to be so before anything else happens."""
    faulthandler.enable()  # what crashes says where, in the server's log
    be_killed_first()
    _forget_path()
    if sys.platform != "win32":
        import resource

        # A crash must not write gigabytes of models to the disk.
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")


def _forget_path() -> None:
    """Programs that nodes start are not to find this one's packages in place of their own."""
    first, _, rest = os.environ.get("PYTHONPATH", "").partition(os.pathsep)
    if first == str(ROOT):
        os.environ.pop("PYTHONPATH")
        os.environ.update({"PYTHONPATH": rest} if rest else {})


def main() -> None:
    """The process. It is of no use by itself."""
    parser = argparse.ArgumentParser(description="Runs jobs for `latentloom serve`, which starts it.")
    parser.add_argument("name", help="the worker's name, for those who list processes")
    parser.add_argument("--channel", type=int, required=True, help="the descriptor of a socket to the server")
    arguments = parser.parse_args()
    _prepare()
    channel = Channel(arguments.channel)
    messages = channel.receive()
    match messages:
        case None:
            return
        case [Configure() as order]:
            Worker(channel, order).live()
        case _:
            raise SystemExit("the server did not begin by saying who this is")


if __name__ == "__main__":
    main()
