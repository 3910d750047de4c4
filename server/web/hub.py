"""Who listens: websocket clients by owner and id. What belongs to one is told to that one alone, and to nobody else.

A client that comes back under its old id is heard beside its old socket; when that one ends, the new one stays.
Where very many listen, they are told some at a time, so that the event loop has time for others in between.
"""

import asyncio
import json
import struct
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from server.database.errors import DatabaseError
from server.web.narrator import Message, Picture, StatusText, Told
from server.web.outbox import Frame, Outbox

STATUS_SECONDS = 0.1
"""How long the queue is, is told no oftener than this."""
TOLD_AT_ONCE = 50
"""Listeners, before others have their turn."""
PREVIEW, TEXT, PREVIEW_WITH_METADATA = 1, 3, 4
IMAGE_TYPES = {"image/jpeg": 1, "image/png": 2}

Json = dict[str, Any]
Key = tuple[str, str | None]
"""An owner and a client's id; None: whoever follows all of the owner's jobs."""
Count = Callable[[str], Awaitable[int]]
"""How many jobs of an owner wait or run."""


@dataclass(slots=True, eq=False)
class Listener:
    """A websocket client as the rest of the server sees it.

    Args:
        follows_all: whether it is told of all jobs of its owner, and not only of those it submitted.
    """

    owner: str
    client_id: str
    follows_all: bool = False
    outbox: Outbox = field(default_factory=Outbox)
    flags: Json = field(default_factory=dict[str, Any])
    held: list[Frame] | None = None
    """What is told while the client is still being told what it missed."""

    @property
    def metadata(self) -> bool:
        """Whether pictures are to come in the newer of the two forms."""
        return self.flags.get("supports_preview_metadata") is True

    @property
    def replays(self) -> bool:
        """Whether it wants to know the numbers of events, to ask for what it missed."""
        return self.flags.get("supports_replay") is True

    def put_all(self, forms: Iterable["Forms"]) -> None:
        """Several things to be sent, each in the form that this client takes."""
        newer = self.metadata
        for plain, with_metadata in forms:
            self.put(with_metadata if newer else plain)

    def put(self, frame: Frame) -> None:
        """Something to be sent, in its turn."""
        if self.held is None:
            self.outbox.put(frame)
        else:
            self.held.append(frame)

    def release(self) -> None:
        """Nothing is held back any more."""
        held, self.held = self.held or [], None
        for frame in held:
            self.outbox.put(frame)


Forms = tuple[Frame, Frame]
"""The same in the older and in the newer of the two forms; mostly there is no difference."""


@dataclass(slots=True, eq=False)
class _Parcel:
    """What some are to be told."""

    listeners: Sequence[Listener]
    forms: list[Forms]


@dataclass(slots=True)
class Hub:
    """All who listen. Several sockets may have the same id, and each is told everything."""

    count: Count
    _listeners: dict[Key, set[Listener]] = field(default_factory=dict[Key, set[Listener]])
    _groups: dict[Key, Sequence[Listener]] = field(default_factory=dict[Key, Sequence[Listener]])
    """Who is told of the jobs of a client: those of its id, and those who follow all."""
    _parcels: deque[_Parcel] = field(default_factory=deque[_Parcel])
    _courier: "asyncio.Task[None] | None" = None
    _told_status: float = float("-inf")
    _status_due: "asyncio.Task[None] | None" = None

    def __len__(self) -> int:
        return sum(map(len, self._listeners.values()))

    def add(self, listener: Listener) -> None:
        """Somebody listens."""
        self._groups.clear()
        for key in _keys(listener):
            self._listeners.setdefault(key, set()).add(listener)

    def remove(self, listener: Listener) -> None:
        """Somebody has gone. Others of the same id stay."""
        self._groups.clear()
        for key in _keys(listener):
            same = self._listeners.get(key, set())
            same.discard(listener)
            if not same:
                self._listeners.pop(key, None)

    def tell(self, owner: str, client_id: str | None, told: Iterable[tuple[Told, str | None]]) -> None:
        """Tell a client what happened to a job of its own: each message, and its JSON if there is some already."""
        group = self._groups.get((owner, client_id))
        if group is None:
            everything = self._listeners.get((owner, None), set())
            group = self._groups[owner, client_id] = tuple(everything | self._listeners.get((owner, client_id), set()))
        if group:
            self._send(group, [_forms(each, text) for each, text in told])

    def written(self, last: int) -> None:
        """Tell those who want to know up to which number events can be asked for again."""
        frame = Frame(envelope("logged", json.dumps({"last": last})), replaces="logged")
        self._send([listener for listener in self._everybody() if listener.replays], [(frame, frame)])

    def _everybody(self) -> set[Listener]:
        return {listener for same in self._listeners.values() for listener in same}

    def queue_changed(self) -> None:
        """Have everybody told how long the queue is: at once or, if that was told a moment ago, in a moment."""
        if self._status_due is None:
            wait = self._told_status + STATUS_SECONDS - time.monotonic()
            self._status_due = asyncio.create_task(self._tell_status_in(max(wait, 0.0)))

    def close(self) -> None:
        """Forget what is still to be told."""
        for task in (self._status_due, self._courier):
            if task is not None:
                task.cancel()

    def _send(self, listeners: Sequence[Listener], forms: list[Forms]) -> None:
        """Tell some listeners, after everything that was to be told before."""
        if self._courier is None and len(listeners) <= TOLD_AT_ONCE:
            for listener in listeners:
                listener.put_all(forms)
            return
        last = self._parcels[-1] if self._parcels else None
        if last is not None and last.listeners is listeners:
            last.forms += forms
        else:
            self._parcels.append(_Parcel(listeners, forms))
        if self._courier is None:
            self._courier = asyncio.create_task(self._deliver())

    async def _deliver(self) -> None:
        while self._parcels:
            parcel = self._parcels.popleft()
            for start in range(0, len(parcel.listeners), TOLD_AT_ONCE):
                for listener in parcel.listeners[start : start + TOLD_AT_ONCE]:
                    listener.put_all(parcel.forms)
                await asyncio.sleep(0)
        self._courier = None

    async def _tell_status_in(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._status_due = None
        with suppress(DatabaseError):  # whoever asks for more than a number will be told of it
            await self._tell_status()

    async def _tell_status(self) -> None:
        self._told_status = time.monotonic()
        owners: dict[str, list[Listener]] = {}
        for listener in self._everybody():
            owners.setdefault(listener.owner, []).append(listener)
        for owner, listeners in owners.items():
            frame = status_frame(await self.count(owner))
            self._send(listeners, [(frame, frame)])


def _keys(listener: Listener) -> list[Key]:
    own: Key = (listener.owner, listener.client_id)
    return [own, (listener.owner, None)] if listener.follows_all else [own]


def envelope(kind: str, data: str) -> str:
    """A message as it is sent; `data` is JSON already."""
    return f'{{"type":{json.dumps(kind)},"data":{data}}}'


def status_data(remaining: int) -> Json:
    return {"status": {"exec_info": {"queue_remaining": remaining}}}


def status_frame(remaining: int) -> Frame:
    return Frame(envelope("status", json.dumps(status_data(remaining))), replaces="status")


def text_of(message: Message) -> str:
    """The data of a message as JSON."""
    return json.dumps(message.data, separators=(",", ":"))


def _forms(told: Told, text: str | None) -> Forms:
    plain = _frame(told, text, False)
    return (plain, _frame(told, text, True)) if isinstance(told, Picture) else (plain, plain)


def _frame(told: Told, text: str | None, metadata: bool) -> Frame:
    match told:
        case Message():
            return Frame(envelope(told.type, text_of(told) if text is None else text), told.replaces)
        case StatusText(node_id, line):
            # In JSON, names may hold half letters, which bytes cannot.
            at = node_id.encode(errors="replace")
            return Frame(struct.pack(">II", TEXT, len(at)) + at + line.encode(errors="replace"))
        case Picture(described, content, result):
            mark = None if result else ("picture", described.get("prompt_id"), described.get("node_id"))
            if not metadata:
                kind = IMAGE_TYPES.get(str(described.get("image_type")), 1)
                return Frame(struct.pack(">II", PREVIEW, kind) + content, mark)
            about = json.dumps(described).encode()
            return Frame(struct.pack(">II", PREVIEW_WITH_METADATA, len(about)) + about + content, mark)


def with_texts(told: Sequence[Told]) -> list[tuple[Told, str | None]]:
    """Messages with their JSON, which both the log and the client need."""
    return [(each, text_of(each) if isinstance(each, Message) else None) for each in told]
