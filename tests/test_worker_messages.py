"""What the server and its workers say to each other, as bytes."""

import socket
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graph.problems import Problem
from server.workers.channel import Channel
from server.workers.framing import HEADER_BYTES, BadFrame, read_header
from server.workers.messages import (
    FROM_WORKER,
    TO_WORKER,
    Alive,
    CancelJob,
    Configure,
    Described,
    Ended,
    FromWorker,
    Happened,
    Job,
    JobResult,
    NodeFinished,
    NodeProgressed,
    Picture,
    ResidentModel,
    RunJob,
    RunStarted,
)
from server.workers.options import WorkerOptions

PLACE: dict[str, Any] = {"at": 0.5, "node_id": "3", "class_name": "KSampler", "title": None, "parent": "2"}
PICTURE = Picture(media_type="image/jpeg", data=b"\xff\xd8\xff and so on")
SAID: list[FromWorker] = [
    Alive(rss=None, models=(ResidentModel("loomlet U-Net", 12),)),
    Happened(job_id="7", event=RunStarted(at=0.0, needed=("1", "2"), reused=())),
    Happened(job_id="7", event=NodeProgressed(**PLACE, value=1, maximum=2.5, preview=PICTURE)),
    Happened(
        job_id="7", event=NodeFinished(**PLACE, seconds=0.25, ui=b'{"text":["\xc3\xa4"]}', files=("/a\udcff.png",))
    ),
    Ended(job_id="7", result=JobResult(status="invalid", problems=(Problem("cycle", "it goes round", node_id="1"),))),
    Described(request=1, content=b"{}"),
]


def heard(frame: bytes) -> list[FromWorker]:
    return FROM_WORKER.messages(read_header(frame[:HEADER_BYTES]), frame[HEADER_BYTES:])


def test_messages_arrive_as_they_were_said():
    assert heard(FROM_WORKER.frame(SAID)) == SAID


def test_a_job_and_its_options_arrive_as_they_were_said():
    left, right = socket.socketpair()
    with left:
        channel = Channel(right.detach())
        job = Job.of("7", {"1": {"class_type": "Spin"}}, targets=["1"], priority=3, previews=True)
        said = [Configure(name="a", device="cpu", options=WorkerOptions(), orphan_seconds=9), RunJob(job=job)]
        left.sendall(TO_WORKER.frame(said))
        assert channel.receive() == said
        channel.close()


@given(st.text(), st.binary())
def test_any_text_and_any_bytes_pass(text: str, content: bytes):
    finished = NodeFinished(at=0, node_id=text, class_name=text, title=text, parent=text, seconds=0, ui=content)
    said: list[FromWorker] = [Happened(job_id=text, event=finished)]
    assert heard(FROM_WORKER.frame(said)) == said


@pytest.mark.parametrize("cut", [1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 5, -1])
def test_half_a_message_is_the_end_of_all_messages(cut: int):
    left, right = socket.socketpair()
    channel = Channel(right.detach())
    frame = TO_WORKER.frame([CancelJob(job_id="7")])
    with left:
        left.sendall(frame + frame[:cut])
    assert channel.receive() == [CancelJob(job_id="7")]
    assert channel.receive() is None
    channel.close()


@pytest.mark.parametrize(
    "header",
    [b"GET / HTTP/1", b"\0" * HEADER_BYTES, b"LLW\x01\xff\xff\xff\xff\xff\xff\xff\xff"],
    ids=["HTTP", "nothing", "too much"],
)
def test_what_is_no_header_is_refused(header: bytes):
    with pytest.raises(BadFrame):
        read_header(header)


def test_another_version_says_what_to_do():
    with pytest.raises(BadFrame, match="speaks version 2 of the protocol, this one version 1: .* start it again"):
        read_header(b"LLW\x02" + bytes(8))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"[[]",
        b'[["1"]]',
        b"[[5]]",
        b"[[-5]]",
        b'[[],{"kind":"unheard of"}]',
        b'[[],{"kind":"ended","job_id":"7","result":{"status":"done","outputs":0}}]',
        b'[[],{"kind":"described","request":1,"content":true}]',
        b"[" * 100_000,
        b'[[],"\xff"]',
        b"[[]," + b"9" * 5000 + b"]",
    ],
)
def test_what_is_no_message_is_refused(content: bytes):
    sizes = replace(read_header(FROM_WORKER.frame([])[:HEADER_BYTES]), content=len(content))
    with pytest.raises(BadFrame):
        FROM_WORKER.messages(sizes, content)
