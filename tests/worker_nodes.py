"""Own nodes for workers in tests: some work, some wait, and some do what no node should."""

import ctypes
import json
import logging
import os
import stat
import subprocess
import sys
from base64 import b64decode
from contextlib import suppress
from dataclasses import dataclass
from threading import Event
from typing import Any

from graph.cancellation import Cancellation, Progress
from graph.folders import Folders
from graph.node import composite, node
from graph.previews import Preview
from graph.values import INJECTED, Ui, Value
from nodes.documents import Documents
from nodes.saving import SavedFiles

PNG = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAG7buVgAAAABJRU5ErkJggg==")
KEPT: list[bytearray] = []
"""What a node never lets go."""


@dataclass(frozen=True)
class Yarn(Value, kind="YARN"):
    length: int = 1


@dataclass(frozen=True)
class Note(Ui):
    text: str

    def to_json(self) -> dict[str, list[Any]]:
        return {"text": [self.text]}


@node("Spin")
def spin(length: int = 1) -> Yarn:
    """Make a yarn."""
    return Yarn(length)


@node("Twist", progress=True)
def twist(yarn: Yarn) -> Yarn:
    """Make it longer."""
    return Yarn(yarn.length + 1)


@node("TwistSlowly")
def twist_slowly(yarn: Yarn) -> Yarn:
    """Make it longer in so much time that it is worth keeping on the disk."""
    Event().wait(0.01)
    return Yarn(yarn.length + 1)


@composite("TwistTwice")
def twist_twice(yarn: Yarn) -> Yarn:
    """Make it longer, twice."""
    return twist(twist(yarn))


@node("Show")
def show(yarn: Yarn) -> Note:
    """Say how long it is, and in which process."""
    return Note(f"{yarn.length} in {os.getpid()}")


@node("Modules")
def modules() -> Note:
    """Say which heavy modules are loaded."""
    return Note(" ".join(sorted({"torch", "PIL", "diffusers", "numpy"}.intersection(sys.modules))))


@node("Wait", impure=True)
def wait(yarn: Yarn | None = None, progress: Progress = INJECTED) -> Yarn:
    """Wait until somebody cancels it."""
    nothing = Event()
    while True:
        progress(1, 2)
        nothing.wait(0.005)


@node("Hold", impure=True)
def hold() -> Yarn:
    """Never return, and never let another thread do anything."""
    ctypes.PyDLL(None).sleep(100_000)
    return Yarn()


@node("Persist", impure=True)
def persist(cancellation: Cancellation = INJECTED) -> Yarn:
    """Never return, though asked to."""
    Event().wait()
    return Yarn()


@node("Exit", impure=True)
def leave(code: int = 7) -> Yarn:
    """End the process."""
    os._exit(code)


@node("Crash", impure=True)
def crash() -> Yarn:
    """Crash the process."""
    ctypes.string_at(0)
    return Yarn()


@node("LeaveBehind", impure=True)
def leave_behind(pipe: str) -> Yarn:
    """Start a program that would run for hours with a pipe open, and end the process."""
    subprocess.Popen(["sh", "-c", 'exec 9>"$0"; sleep 100000', pipe])
    os._exit(1)


@node("OpenPipe", impure=True)
def open_pipe(pipe: str, progress: Progress = INJECTED) -> Yarn:
    """Keep a pipe open for as long as the process lives."""
    os.open(pipe, os.O_WRONLY)
    return wait(progress=progress)


@node("OpenPipeAndHold", impure=True)
def open_pipe_and_hold(pipe: str) -> Yarn:
    """Keep a pipe open, never return, and never let another thread do anything."""
    os.open(pipe, os.O_WRONLY)
    return hold()


@node("Variable", impure=True)
def variable(name: str) -> Note:
    """Show a variable of the environment."""
    return Note(os.environ.get(name, ""))


@node("Warn", impure=True)
def warn() -> Note:
    """Log a warning."""
    logging.getLogger("latentloom.wool").warning("the wool is thin")
    return Note("warned")


@node("Babble", impure=True)
def babble(words: str, leave: bool = False) -> Yarn:
    """Write something to all sockets of the process; then end it at once, or wait for what comes of it."""
    for descriptor in range(3, 100):
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                os.write(descriptor, words.encode("latin-1"))
    if leave:
        os._exit(9)
    Event().wait()
    return Yarn()


@node("Scribble", impure=True)
def scribble() -> Note:
    """Print, and write whatever to the standard output and error."""
    print("a stray print", flush=True)
    for descriptor in (1, 2):
        os.write(descriptor, b"LLW\x01\x00\x00\x00\x04\x00\x00\x00\x00[[]]\xff\xfe no frame\n")
        os.write(descriptor, b"x" * 200_000)
        os.write(descriptor, b"\n" * 10_000)
    return Note("scribbled")


@node("Tick", impure=True)
def tick(times: int = 1, aloud: bool = False, progress: Progress = INJECTED) -> Note:
    """Report progress many times, and say something each time or not."""
    for time in range(times):
        progress(time + 1, times)
        if aloud:
            logging.getLogger("latentloom.wool").warning("tick")
    return Note("ticked")


@node("Shout", impure=True)
def shout(number: int = 0, size: int = 1) -> Note:
    """Have much to show."""
    return Note(f"{number:06}" + "x" * size)


@node("Draw", impure=True)
def draw(times: int = 1, preview: Preview = INJECTED, progress: Progress = INJECTED) -> Note:
    """Offer pictures of work in progress."""
    drawn: list[bytes] = []

    def picture() -> bytes:
        drawn.append(PNG)
        return PNG

    for time in range(times):
        preview.preview(picture)
        progress(time + 1, times, drawn[-1] if drawn else None)
    return Note(f"drawn {len(drawn)}")


@node("Fail", impure=True)
def fail(yarn: Yarn | None = None) -> Yarn:
    """Fail."""
    raise ValueError("the thread broke")


@node("Starve", impure=True)
def starve() -> Yarn:
    """Fail for want of memory."""
    raise MemoryError("no more wool")


@node("Quit", impure=True)
def quit_process() -> Yarn:
    """Try to end Python."""
    sys.exit("enough")


@node("Grow", impure=True)
def grow(mebibytes: int = 1) -> Note:
    """Take memory and never give it back."""
    KEPT.append(bytearray(b"x") * (mebibytes << 20))
    return Note("grown")


@node("Write", impure=True)
def write(text: str = "", folders: Folders = INJECTED, documents: Documents = INJECTED) -> SavedFiles:
    """Write a file with all documents in it."""
    path = folders.output / "written.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(documents.texts()))
    return SavedFiles("images", "output", "", (path,))


@node("Odd", impure=True)
def odd() -> Note:
    """Show what is no JSON."""
    return OddNote("odd")


@dataclass(frozen=True)
class OddNote(Note):
    def to_json(self) -> dict[str, list[Any]]:
        return {"odd": [float("nan"), {1, 2}, object, "\udcff"]}
