"""Steps and runs side by side: lanes, turns, urgency, and work that is wanted twice."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier, Event, Lock, current_thread
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graph.active_run import RunOptions
from graph.cancellation import Cancellation
from graph.catalogue import AnyNode
from graph.errors import Cancelled
from graph.events import NodeFinished, NodeReused, NodeStarted
from graph.executor import Executor, Result
from graph.node import node
from graph.store import MemoryStore
from tests.toys import NOWHERE, Cloth, Loom, Note, Yarn, graph_of, use

PATIENCE = 30
"""Seconds after which a test fails instead of hanging."""


def run_on(
    executor: Executor,
    nodes: list[AnyNode],
    document: dict[str, Any],
    target: str = "end",
    *,
    store: MemoryStore | None = None,
    emit: Callable[[Any], None] = lambda event: None,
    cancellation: Cancellation | None = None,
    options: RunOptions | None = None,
) -> Result:
    graph = graph_of([*Loom().nodes(), *nodes], document, [target])
    return executor.run(
        graph,
        store or MemoryStore(0),
        folders=NOWHERE,
        emit=emit,
        cancellation=cancellation,
        options=options,
    )


def in_background(pool: ThreadPoolExecutor, *args: Any, **more: Any) -> "Future[Result]":
    return pool.submit(run_on, *args, **more)


def two_branches(kind: str) -> dict[str, Any]:
    return {
        "a": use(kind, colour="a"),
        "b": use(kind, colour="b"),
        "end": use("Weave", warp=["a", 0], weft=["b", 0]),
    }


def test_independent_branches_overlap():
    both = Barrier(2)

    @node("Meet", lane="wide")
    def meet(colour: str = "") -> Yarn:
        both.wait(PATIENCE)
        return Yarn(colour)

    result = run_on(Executor({"wide": 2}), [meet], two_branches("Meet")).checked()
    assert result.outputs["end"] == (Cloth((Yarn("a"), Yarn("b"))),)


def test_saving_overlaps_the_next_computation():
    saving, computing = Event(), Event()

    @node("Save", lane="io")
    def save(yarn: Yarn) -> Note:
        saving.set()
        assert computing.wait(PATIENCE)
        return Note(yarn.colour)

    @node("Compute", lane="device")
    def compute(yarn: Yarn) -> Note:
        assert saving.wait(PATIENCE)
        computing.set()
        return Note(yarn.colour)

    document = {"a": use("Spin"), "save": use("Save", yarn=["a", 0]), "compute": use("Compute", yarn=["a", 0])}
    graph = graph_of([*Loom().nodes(), save, compute], document)
    assert set(Executor().run(graph, MemoryStore(0), folders=NOWHERE).checked().shown) == {"save", "compute"}


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(0, 6), st.integers(2, 10))
def test_a_lane_is_never_over_its_width_and_results_do_not_depend_on_it(width: int, threads: int, count: int):
    lock, inside, most = Lock(), [0], [0]

    @node("Count", lane="narrow")
    def count_up(length: int = 0) -> Yarn:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        with lock:
            inside[0] -= 1
        return Yarn("", length)

    document: dict[str, Any] = {str(at): use("Count", length=at) for at in range(count)}
    document |= {"t0": use("Twist", a=["0", 0])}
    document |= {f"t{at}": use("Twist", a=[f"t{at - 1}", 0], b=[str(at), 0]) for at in range(1, count)}
    result = run_on(Executor({"narrow": width}, threads=threads), [count_up], document, f"t{count - 1}").checked()
    assert most[0] <= width
    assert result.outputs[f"t{count - 1}"] == (Yarn("", sum(range(count))),)


def test_steps_start_in_the_order_of_the_plan():
    started: list[str] = []

    @node("Step", lane="single")
    def step(colour: str = "") -> Yarn:
        started.append(colour)
        return Yarn(colour)

    document: dict[str, Any] = {str(at): use("Step", colour=f"{at:02}") for at in range(12)}
    document |= {"t0": use("Twist", a=["0", 0])}
    document |= {f"t{at}": use("Twist", a=[f"t{at - 1}", 0], b=[str(at), 0]) for at in range(1, 12)}
    for _ in range(5):
        started.clear()
        run_on(Executor(), [step], document, "t11").checked()
        assert started == sorted(started)


def test_a_chain_stays_in_the_thread_that_asked_for_it():
    threads: set[str] = set()

    @node("Where")
    def where(yarn: Yarn) -> Yarn:
        threads.add(current_thread().name)
        return yarn

    document: dict[str, Any] = {"0": use("Spin")}
    document |= {str(at): use("Where", yarn=[str(at - 1), 0]) for at in range(1, 50)}
    run_on(Executor(), [where], document, "49").checked()
    assert threads == {current_thread().name}


def steps_of_two_runs(first: int, second: int) -> list[str]:
    """The order in which two runs of ten steps got a lane for one; the first has it when the second comes."""
    order: list[str] = []
    begun, both = Event(), Event()

    @node("Step", lane="single")
    def step(yarn: Yarn, colour: str = "", at: int = 0) -> Yarn:
        if colour == "first" and at == 1:
            begun.set()
            assert both.wait(PATIENCE)
        order.append(colour)
        return yarn

    def document(colour: str) -> dict[str, Any]:
        chain = {"0": use("Spin", colour=colour)}
        return chain | {str(at): use("Step", yarn=[str(at - 1), 0], colour=colour, at=at) for at in range(1, 11)}

    def ready(event: object) -> None:
        if isinstance(event, NodeFinished) and event.node_id == "0":
            both.set()

    executor = Executor()
    with ThreadPoolExecutor(2) as pool:
        one = in_background(pool, executor, [step], document("first"), "10", options=RunOptions(priority=first))
        assert begun.wait(PATIENCE)
        two = in_background(
            pool, executor, [step], document("second"), "10", emit=ready, options=RunOptions(priority=second)
        )
        one.result(PATIENCE).checked()
        two.result(PATIENCE).checked()
    return order


def test_runs_of_equal_urgency_take_turns():
    order = steps_of_two_runs(0, 0)
    assert order.count("second") == 10
    halfway = order[1:-1]
    assert "second" in halfway[:3] and "first" in halfway[-12:]


def test_a_more_urgent_run_takes_over_between_two_steps_and_the_other_goes_on_afterwards():
    order = steps_of_two_runs(0, 1)
    assert order.count("first") == order.count("second") == 10
    last_of_second = len(order) - 1 - order[::-1].index("second")
    assert order[last_of_second + 1 :].count("first") >= 7


@pytest.mark.parametrize("room", [0, 1 << 20])
@pytest.mark.parametrize("is_async", [False, True])
def test_what_two_runs_need_at_once_is_made_once(room: int, is_async: bool):
    ran: list[str] = []
    second = Event()

    def wait() -> Yarn:
        ran.append("made")
        assert second.wait(PATIENCE)
        return Yarn("made")

    async def wait_async() -> Yarn:
        ran.append("made")
        assert await asyncio.to_thread(second.wait, PATIENCE)
        return Yarn("made")

    make: AnyNode = node("Make", lane="wide")(wait_async if is_async else wait)
    executor, store = Executor({"wide": 4}), MemoryStore(room)
    document = {"made": use("Make"), "other": use("Spin"), "end": use("Weave", warp=["made", 0], weft=["other", 0])}

    def joined(event: object) -> None:
        if isinstance(event, NodeFinished | NodeReused) and event.node_id == "other":
            second.set()  # the second run has begun, and goes on with other things meanwhile

    with ThreadPoolExecutor(2) as pool:
        one = in_background(pool, executor, [make], document, store=store)
        while not ran:
            assert not one.done()
        two = in_background(pool, executor, [make], document, store=store, emit=joined)
        results = [one.result(PATIENCE).checked(), two.result(PATIENCE).checked()]
    assert results[0].outputs == results[1].outputs
    assert ran == ["made"]


def test_if_the_first_is_cancelled_the_second_makes_it():
    ran: list[int] = []
    begun, go_on = Event(), Event()

    @node("Make", lane="wide")
    def make(cancellation: Cancellation) -> Yarn:
        ran.append(1)
        begun.set()
        assert go_on.wait(PATIENCE)
        cancellation.check()
        return Yarn("made")

    executor, cancellation = Executor({"wide": 4}), Cancellation()
    document = {"made": use("Make"), "end": use("Twist", a=["made", 0])}
    with ThreadPoolExecutor(2) as pool:
        one = in_background(pool, executor, [make], document, cancellation=cancellation)
        assert begun.wait(PATIENCE)
        two = in_background(pool, executor, [make], document)
        cancellation.cancel()
        go_on.set()
        with pytest.raises(Cancelled):
            one.result(PATIENCE)
        assert two.result(PATIENCE).checked().outputs["end"] == (Yarn("made"),)
    assert len(ran) in (1, 2)


def test_cancelling_one_run_leaves_the_others_alone():
    executor, cancellation = Executor({"wide": 2}), Cancellation()
    begun, go_on = Event(), Event()

    @node("Wait", lane="wide")
    def wait(colour: str = "") -> Yarn:
        if colour == "cancelled":
            begun.set()
        assert go_on.wait(PATIENCE)
        return Yarn(colour)

    def document(colour: str) -> dict[str, Any]:
        return {"a": use("Wait", colour=colour), "end": use("Twist", a=["a", 0])}

    with ThreadPoolExecutor(2) as pool:
        one = in_background(pool, executor, [wait], document("cancelled"), cancellation=cancellation)
        two = in_background(pool, executor, [wait], document("kept"))
        assert begun.wait(PATIENCE)
        cancellation.cancel()
        go_on.set()
        with pytest.raises(Cancelled):
            one.result(PATIENCE)
        assert two.result(PATIENCE).checked().outputs["end"] == (Yarn("kept"),)


def test_async_nodes_overlap():
    inside: list[int] = [0]
    all_in = asyncio.Event()

    @node("Later")
    async def later(colour: str = "") -> Yarn:
        inside[0] += 1
        if inside[0] == 5:
            all_in.set()
        await asyncio.wait_for(all_in.wait(), PATIENCE)
        return Yarn(colour)

    document: dict[str, Any] = {str(at): use("Later", colour=str(at)) for at in range(5)}
    document |= {"t0": use("Twist", a=["0", 0])}
    document |= {f"t{at}": use("Twist", a=[f"t{at - 1}", 0], b=[str(at), 0]) for at in range(1, 5)}
    assert run_on(Executor(threads=0), [later], document, "t4").checked().outputs["t4"] == (Yarn("0", 5),)


def test_a_node_that_does_not_return_in_time_fails_alone_and_the_executor_goes_on():
    never = Event()

    @node("Never", lane="single")
    def hang() -> Yarn:
        never.wait(PATIENCE)
        return Yarn()

    executor = Executor()
    document = {"a": use("Never"), "end": use("Twist", a=["a", 0])}
    result = run_on(executor, [hang], document, options=RunOptions(node_timeout=0.1))
    assert str(result.failures[0]) == (
        "node a (Never) failed: it had not returned after 0.1 seconds, and is waited for no longer"
    )

    @node("Quick", lane="single")
    def quick() -> Yarn:
        return Yarn("quick")

    assert run_on(executor, [quick], {"end": use("Quick")}).checked().outputs["end"] == (Yarn("quick"),)
    never.set()


def test_a_node_that_changes_its_input_is_found_out():
    @node("Paint")
    def paint(yarn: Yarn) -> Yarn:
        object.__setattr__(yarn, "colour", "painted")
        return yarn

    document = {"a": use("Spin"), "end": use("Paint", yarn=["a", 0])}
    result = run_on(Executor(), [paint], document, options=RunOptions(check_inputs=True))
    assert "node end (Paint) failed: it changes its input 'yarn' in place" in str(result.failures[0])


def test_starts_and_ends_are_told_one_at_a_time():
    inside = Lock()
    told: list[str] = []

    def tell(event: Any) -> None:
        assert inside.acquire(blocking=False), "two events at once"
        if isinstance(event, NodeStarted | NodeFinished):
            told.append(event.node_id)
        inside.release()

    document: dict[str, Any] = {str(at): use("Spin", length=at) for at in range(30)}
    document |= {"t0": use("Twist", a=["0", 0])}
    document |= {f"t{at}": use("Twist", a=[f"t{at - 1}", 0], b=[str(at), 0]) for at in range(1, 30)}
    run_on(Executor({"cpu": 4}), [], document, "t29", emit=tell).checked()
    assert len(told) == 2 * 60
