"""Runs as clients of the protocol are told of them."""

import itertools
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import graph.events as happened
from graph.cancellation import Cancellation, Progress
from graph.catalogue import Catalogue
from graph.errors import Cancelled, describe_error
from graph.events import Event, NodeFinished
from graph.lists import blocked
from graph.node import composite, node
from graph.values import INJECTED
from nodes import flow, lists
from server.web.narrator import Message, Narrator, StatusText, Told
from server.workers import messages
from tests.toys import Loom, Note, Yarn, use

DOCUMENT = {"1": use("Spin"), "2": use("Twist", a=["1", 0]), "3": use("Show", what=["2", 0])}


@node("Stretch", progress=True)
def stretch(yarn: Yarn) -> Yarn:
    return Yarn(yarn.colour, yarn.length + 1)


@node("Hang")
def hang(yarn: Yarn) -> Note:
    return Note("up")


@composite("Steps")
def steps(yarn: Yarn) -> Yarn:
    for _ in range(3):
        yarn = stretch(yarn)
    return yarn


@composite("HangTwice")
def hang_twice(yarn: Yarn) -> Note:
    hang(yarn)
    return hang(stretch(yarn))


@node("Walk")
def walk(yarn: Yarn, progress: Progress = INJECTED) -> Yarn:
    for at in range(1, 1001):
        progress(at, 1000)
    return yarn


@node("Stop")
def stop(yarn: Yarn) -> Yarn:
    return blocked("no more wool")


def world() -> Loom:
    return Loom(extra=[stretch, hang, steps, hang_twice, walk, stop, *Catalogue.gather(flow, lists).values()])


def as_worker_tells(event: Event) -> messages.JobEvent:
    """An event of a run as the server hears of it."""
    match event:
        case happened.RunStarted():
            return messages.RunStarted(at=0, needed=event.needed, reused=event.reused)
        case happened.RunFinished():
            return messages.RunFinished(at=0, status=event.status, seconds=event.seconds)
        case _:
            step: Any = {"at": 0, "node_id": event.node_id, "class_name": event.class_name}
            step |= {"title": event.title, "parent": event.parent}
    match event:
        case happened.NodeStarted():
            return messages.NodeStarted(**step)
        case happened.NodeReused():
            return messages.NodeReused(**step)
        case happened.NodeProgressed():
            return messages.NodeProgressed(**step, value=event.value, maximum=event.maximum)
        case happened.NodeFinished():
            shown = json.dumps({"text": [str(event.ui)]}).encode() if event.ui is not None else None
            return messages.NodeFinished(**step, seconds=event.seconds, ui=shown)
        case happened.NodeSkipped():
            return messages.NodeSkipped(**step, message=event.message)
        case happened.NodeFailed():
            cause = event.error.__cause__ or event.error
            failure = messages.Failure(
                kind="node_failed",
                type=type(cause).__name__,
                message=describe_error(cause),
                text=str(event.error),
                node_id=event.node_id,
                class_name=event.class_name,
            )
            return messages.NodeFailed(**step, failure=failure)


def told(
    document: dict[str, Any],
    loom: Loom | None = None,
    clock: Callable[[], float] = lambda: 0.0,
    watch: Callable[[Event], None] = lambda event: None,
    cancellation: Cancellation | None = None,
) -> tuple[list[Told], Narrator]:
    """What clients are told of a run, and who told it."""
    narrator = Narrator("job", {node_id: used["class_type"] for node_id, used in document.items()}, clock)
    found: list[Told] = []

    def emit(event: Event) -> None:
        found.extend(narrator.tell([as_worker_tells(event)]))
        watch(event)

    with suppress(Cancelled):
        (loom or world()).run(document, emit=emit, cancellation=cancellation)
    return found, narrator


def names(messages: list[Told]) -> list[str]:
    return [f"{each.type} {each.data.get('node', '')}".strip() for each in messages if isinstance(each, Message)]


def of_type(messages: list[Told], name: str) -> list[dict[str, Any]]:
    return [each.data for each in messages if isinstance(each, Message) and each.type == name]


def test_a_run_is_told_in_the_protocols_order():
    messages, _ = told(DOCUMENT)
    expected = ["execution_start", "execution_cached"]
    for node_id in "123":
        expected += ["progress_state", f"executing {node_id}"]
        expected += ["executed 3"] if node_id == "3" else []
        expected += ["progress_state"]
    assert names(messages) == [*expected, "execution_success"]


def test_what_is_cached_is_told_once_and_not_executed():
    loom = world()
    told(DOCUMENT, loom)
    messages, narrator = told(DOCUMENT, loom)
    assert of_type(messages, "execution_cached")[0]["nodes"] == ["2"]
    assert [data["node"] for data in of_type(messages, "executing")] == ["3"]
    assert narrator.executed == ["2", "3"]


def test_steps_of_a_composite_are_progress_of_its_node():
    messages, _ = told({"1": use("Spin"), "2": use("Steps", yarn=["1", 0]), "3": use("Show", what=["2", 0])})
    assert [data["node"] for data in of_type(messages, "executing")] == ["1", "2", "3"]
    # The clock stands still: of the ticks between, none is due.
    assert [(data["node"], data["value"], data["max"]) for data in of_type(messages, "progress")] == [
        ("2", 1, 3),
        ("2", 3, 3),
    ]


def test_progress_is_told_a_few_times_a_second_however_often_it_ticks():
    times = itertools.count()
    document = {"1": use("Spin"), "2": use("Walk", yarn=["1", 0]), "3": use("Show", what=["2", 0])}
    messages, _ = told(document, clock=lambda: next(times) / 128)  # ten seconds, one tick in each 128th
    assert 75 < len(of_type(messages, "progress")) < 80


def test_traffic_is_linear_in_the_number_of_nodes():
    def size(count: int) -> int:
        document = {"0": use("Spin")} | {str(at): use("Twist", a=[str(at - 1), 0]) for at in range(1, count)}
        messages, _ = told(document | {"end": use("Show", what=[str(count - 1), 0])})
        return sum(len(str(each)) for each in messages)

    assert size(400) < 4.5 * size(100)


def test_what_a_step_inside_shows_stands_at_its_node():
    messages, narrator = told({"1": use("Spin"), "2": use("HangTwice", yarn=["1", 0])})
    shown = {data["node"]: data["display_node"] for data in of_type(messages, "executed")}
    assert set(shown.values()) == {"2"} and len(shown) == 2
    assert set(narrator.outputs) == set(shown)


def test_turns_of_a_loop_are_shown_at_the_nodes_of_the_document():
    document = {
        "1": use("NumberRange", stop=3),
        "2": use("ForEach", items=["1", 0]),
        "3": use("Spin", length=["2", 1]),
        "4": use("Hang", yarn=["3", 0]),
        "5": use("ForEachEnd", loop=["2", 0], result=["3", 0]),
        "6": use("Show", what=["7", 0]),
        "7": use("ListItem", items=["5", 0]),
    }
    messages, _ = told(document)
    assert [data["display_node"] for data in of_type(messages, "executed")] == ["4", "4", "4", "6"]


def test_a_failure_ends_the_run_with_the_node_of_the_document():
    messages, narrator = told({"1": use("Fail"), "2": use("Show", what=["1", 0]), "3": use("Tell")})
    (error,) = of_type(messages, "execution_error")
    assert (error["node_id"], error["node_type"]) == ("1", "Fail")
    assert (error["exception_type"], error["exception_message"]) == ("ValueError", "the thread broke")
    assert (error["traceback"], error["executed"]) == ([], ["3"])
    assert of_type(messages, "execution_success") == []
    assert [name for name, _ in narrator.lasting] == ["execution_start", "execution_cached", "execution_error"]


def test_a_cancelled_run_is_told_as_interrupted():
    cancellation = Cancellation()

    def cancel(event: Event) -> None:
        if isinstance(event, NodeFinished) and event.node_id == "1":
            cancellation.cancel()

    messages, _ = told(DOCUMENT, watch=cancel, cancellation=cancellation)
    (data,) = of_type(messages, "execution_interrupted")
    assert data["executed"] == ["1"]
    assert "execution_success" not in names(messages)


def test_a_blocked_node_says_why_and_the_run_succeeds():
    messages, _ = told({"1": use("Spin"), "2": use("Stop", yarn=["1", 0]), "3": use("Show", what=["2", 0])})
    assert [each for each in messages if isinstance(each, StatusText)] == [StatusText("3", "skipped: no more wool")]
    assert "execution_success" in names(messages)


def test_of_waiting_progress_only_the_last_needs_to_be_sent():
    messages, _ = told({"1": use("Spin"), "2": use("Steps", yarn=["1", 0]), "3": use("Show", what=["2", 0])})
    marks = {each.replaces for each in messages if isinstance(each, Message) and each.type == "progress"}
    assert marks == {"progress job 2"}
    assert all(each.replaces is None for each in messages if isinstance(each, Message) and each.type == "executed")


def test_how_far_nodes_are_is_told_once_for_all_that_happens_at_once():
    narrator = Narrator("job", {str(number): "Twist" for number in range(300)})
    step: dict[str, Any] = {"class_name": "Twist", "title": None, "parent": None}
    events: list[messages.JobEvent] = []
    for number in map(str, range(300)):
        events.append(messages.NodeStarted(at=0.0, node_id=number, **step))
        if number != "299":
            events.append(messages.NodeFinished(at=0.0, node_id=number, seconds=0.0, **step))
    found = narrator.tell(events)
    (states,) = of_type(found, "progress_state")
    assert {node: each["state"] for node, each in states["nodes"].items()} == {
        str(number): "running" if number == 299 else "finished" for number in range(300)
    }
    assert names(found) == ["progress_state", *(f"executing {number}" for number in range(300))]
