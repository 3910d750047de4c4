import asyncio
import gc
import time
import weakref
from dataclasses import dataclass
from threading import Thread
from typing import Any

import pytest

from graph.cancellation import Cancellation, Progress
from graph.errors import Cancelled, NodeError, RunFailed
from graph.events import NodeFailed, NodeFinished, NodeProgressed, NodeStarted, RunFinished, RunStarted
from graph.execute import run
from graph.folders import Folders
from graph.keys import Key
from graph.node import node
from graph.resolve import Step
from graph.store import MemoryStore, Outputs
from graph.values import INJECTED, Service, Value
from tests.toys import NOWHERE, Loom, Note, Pair, Yarn, graph_of, use

WORKFLOW = {
    "spin": use("Spin", colour="blue"),
    "split": use("Split", yarn=["spin", 0]),
    "weave": use("Weave", warp=["split", 0], weft=["split", 1]),
    "end": use("Show", what=["weave", 0]),
    "idle": use("Fail"),
}


def chain(length: int, **last: Any) -> dict[str, Any]:
    """A spun yarn twisted again and again."""
    document = {"0": use("Spin")} | {str(at): use("Twist", a=[str(at - 1), 0]) for at in range(1, length)}
    return document | {"end": use("Show", what=[str(length - 1), 0], **last)}


def test_only_what_the_outputs_need_runs():
    loom = Loom()
    result = loom.run(WORKFLOW).checked()
    assert loom.ran == ["spin blue", "split", "weave", "show"]
    assert result.shown["end"] == Note(str(loom.value(WORKFLOW, "weave")))


def test_the_second_run_reuses_everything_but_the_sink():
    loom = Loom()
    loom.run(WORKFLOW)
    loom.run(WORKFLOW)
    assert loom.ran == ["show"]
    assert loom.told() == [
        "RunStarted",
        "NodeReused weave",
        "NodeStarted end",
        "NodeFinished end",
        "RunFinished",
    ]


def test_changing_the_last_node_runs_only_that():
    loom = Loom()
    loom.value({"spin": use("Spin"), "end": use("Twist", a=["spin", 0])})
    loom.value({"spin": use("Spin"), "end": use("Twist", a=["spin", 0], b=["spin", 0])})
    assert loom.ran == ["twist red"]


def test_alternating_between_two_workflows_reuses_both():
    loom = Loom()
    for colour in ("red", "blue", "red", "blue"):
        loom.run({"spin": use("Spin", colour=colour), "end": use("Show", what=["spin", 0])})
    assert loom.ran == ["show"]


def test_events_come_in_order_and_name_their_steps():
    loom = Loom()
    loom.run(WORKFLOW)
    steps = ["spin", "split", "weave", "end"]
    told = [f"{event} {step}" for step in steps for event in ("NodeStarted", "NodeFinished")]
    assert loom.told() == ["RunStarted", *told, "RunFinished"]
    assert loom.events[0] == RunStarted(tuple(steps), ())
    assert loom.events[1] == NodeStarted("spin", "Spin", None, None)


def test_a_chain_of_20000_runs():
    loom = Loom()
    loom.run(chain(20_000)).checked()
    assert len(loom.ran) == 20_001


def test_identical_nodes_run_once():
    loom = Loom()
    document = {
        "a": use("Spin"),
        "b": use("Spin", length=1, colour="red"),
        "c": use("Twist", a=["a", 0]),
        "d": use("Twist", a=["b", 0]),
        "end": use("Weave", warp=["c", 0], weft=["d", 0]),
    }
    loom.value(document)
    assert loom.ran == ["spin red", "twist red", "weave"]


def test_without_room_in_the_store_everything_still_runs():
    loom = Loom(MemoryStore(0))
    for _ in range(2):
        loom.run(WORKFLOW).checked()
        assert loom.ran == ["spin blue", "split", "weave", "show"]


def test_results_are_released_after_their_last_use():
    alive: list[weakref.ref[Yarn]] = []
    most = 0

    @node("Make")
    def make(yarn: Yarn | None = None, number: int = 0) -> Yarn:
        nonlocal most
        made = Yarn(str(number))
        alive.append(weakref.ref(made))
        most = max(most, sum(ref() is not None for ref in alive))
        return made

    document = {"0": use("Make")} | {str(at): use("Make", number=at, yarn=[str(at - 1), 0]) for at in range(1, 50)}
    Loom(MemoryStore(0), extra=[make]).run(document, ["49"]).checked()
    assert most <= 3


def test_targets_keep_their_results_and_may_be_any_node():
    result = Loom().run(WORKFLOW, ["spin", "end", "weave", "spin"]).checked()
    assert list(result.outputs) == ["spin", "end", "weave"]
    assert result.outputs["spin"] == (Yarn("blue"),)
    assert result.outputs["end"] == ()


def test_a_failure_leaves_other_branches_and_earlier_results_intact():
    loom = Loom()
    document = WORKFLOW | {
        "broken": use("Fail", yarn=["spin", 0]),
        "after": use("Twist", a=["broken", 0]),
        "lost": use("Show", what=["after", 0]),
    }
    result = loom.run(document)
    assert list(result.shown) == ["end"]
    assert [failure.node_id for failure in result.failures] == ["broken"]
    loom.run(document)
    assert loom.ran == ["show", "fail"]


def test_an_error_names_the_node_and_keeps_its_cause():
    result = Loom().run({"7": use("Fail", "Old loom"), "end": use("Show", what=["7", 0])})
    (failure,) = result.failures
    assert str(failure) == "node 7 (Fail “Old loom”) failed: ValueError: the thread broke"
    assert (failure.node_id, failure.class_name, failure.title) == ("7", "Fail", "Old loom")
    assert isinstance(failure.__cause__, ValueError)
    with pytest.raises(RunFailed, match="the thread broke"):
        result.checked()


def test_a_failed_run_says_so():
    loom = Loom()
    loom.run({"bad": use("Fail"), "end": use("Show", what=["bad", 0])})
    assert [type(event) for event in loom.events] == [RunStarted, NodeStarted, NodeFailed, RunFinished]
    assert isinstance(loom.events[-1], RunFinished)
    assert loom.events[-1].status == "failed"


@pytest.mark.parametrize(
    "error", [SystemExit(1), asyncio.CancelledError(), MemoryError(), RecursionError(), StopIteration()]
)
@pytest.mark.parametrize("is_async", [False, True])
def test_whatever_a_node_raises_fails_only_its_run(error: BaseException, is_async: bool):
    def leave() -> Yarn:
        raise error

    async def leave_later() -> Yarn:
        await asyncio.sleep(0)
        raise error

    loom = Loom(extra=[node("Leave")(leave_later) if is_async else node("Leave")(leave), *async_nodes()])
    document = {
        "bad": use("Leave"),
        "lost": use("Show", what=["bad", 0]),
        "late": use("Later"),
        "end": use("Show", what=["late", 0]),
    }
    result = loom.run(document)
    assert [failure.node_id for failure in result.failures] == ["bad"]
    assert list(result.shown) == ["end"]


def test_a_failure_does_not_keep_what_the_node_held():
    held: list[weakref.ref[Yarn]] = []

    @node("Hold")
    def hold(yarn: Yarn) -> Yarn:
        large = Yarn("large")
        held.append(weakref.ref(large))
        raise ValueError("out of room") from KeyError(1)

    result = Loom(extra=[hold]).run({"spin": use("Spin"), "end": use("Hold", yarn=["spin", 0])}, ["end"])
    gc.collect()
    assert held[0]() is None
    assert result.failures[0].__cause__ is not None


def test_an_interrupt_ends_the_run():
    @node("Interrupt")
    def interrupt() -> Yarn:
        raise KeyboardInterrupt

    loom = Loom(extra=[interrupt])
    with pytest.raises(KeyboardInterrupt):
        loom.run({"end": use("Interrupt")}, ["end"])
    assert loom.events[-1] == RunFinished("cancelled", pytest.approx(0, abs=60))  # pyright: ignore  # pytest types approx bare


def returning(value: object, annotation: Any) -> str:
    """What is said of a node that returns a value against its annotation."""

    def wrong() -> object:
        return value

    wrong.__annotations__["return"] = annotation
    result = Loom(extra=[node("Wrong")(wrong)]).run({"end": use("Wrong")}, ["end"])
    return str(result.failures[0]).partition("it should return ")[2]


@pytest.mark.parametrize(
    ("value", "annotation", "message"),
    [
        (None, Yarn, "YARN as output 'YARN', but it returned None"),
        ((Yarn(),), Yarn, "YARN as output 'YARN', but it returned a tuple of 1"),
        ((Yarn(),), Pair, "2 outputs, but it returned a tuple of 1"),
        (Yarn(), Pair, "2 outputs, but it returned a Yarn"),
        (Pair(Yarn(), None), Pair, "YARN as output 'weft', but it returned None"),  # pyright: ignore  # the mistake that is tested
        ("7", int, "INT as output 'INT', but it returned a str"),
        (None, Any, "* as output '*', but it returned None"),
        (Yarn(), Note, "a Note, but it returned a Yarn"),
    ],
)
def test_a_wrong_result_is_a_failure(value: object, annotation: Any, message: str):
    assert returning(value, annotation) == message


def async_nodes() -> list[Any]:
    @node("Later")
    async def later(seconds: float = 0.001, colour: str = "late") -> Yarn:
        await asyncio.sleep(seconds)
        return Yarn(colour)

    return [later]


LATER = {"a": use("Later"), "b": use("Later", colour="b"), "end": use("Weave", warp=["a", 0], weft=["b", 0])}


def test_async_nodes_run():
    cloth = Loom(extra=async_nodes()).value(LATER)
    assert [thread.colour for thread in cloth.threads] == ["late", "b"]


def test_async_nodes_run_even_inside_an_event_loop():
    async def notebook() -> Any:
        return Loom(extra=async_nodes()).value(LATER)

    assert asyncio.run(notebook()).threads[0] == Yarn("late")


def test_a_run_leaves_the_callers_event_loop_alone():
    async def twice() -> bool:
        before = asyncio.get_running_loop()
        Loom(extra=async_nodes()).value(LATER)
        await asyncio.sleep(0)
        return asyncio.get_running_loop() is before

    assert asyncio.run(twice())


def test_a_waiting_node_is_cancelled():
    cancellation = Cancellation()
    began = time.perf_counter()

    def cancel(event: object) -> None:
        if isinstance(event, NodeStarted):
            Thread(target=cancellation.cancel).start()

    with pytest.raises(Cancelled):
        Loom(extra=async_nodes()).run(
            {"end": use("Later", seconds=60)}, ["end"], cancellation=cancellation, emit=cancel
        )
    assert time.perf_counter() - began < 30


def test_cancelling_stops_between_nodes_and_keeps_what_was_made():
    loom, cancellation = Loom(), Cancellation()

    def stop_after_split(event: object) -> None:
        if isinstance(event, NodeFinished) and event.node_id == "split":
            cancellation.cancel()

    with pytest.raises(Cancelled):
        loom.run(WORKFLOW, cancellation=cancellation, emit=stop_after_split)
    assert loom.events[-1] == RunFinished("cancelled", pytest.approx(0, abs=60))  # pyright: ignore  # pytest types approx bare
    loom.run(WORKFLOW)
    assert loom.ran == ["weave", "show"]


def test_a_cancelled_run_lets_go_of_what_it_made():
    cancellation = Cancellation()
    alive: list[weakref.ref[Yarn]] = []

    @node("Make")
    def make(yarn: Yarn | None = None, number: int = 0) -> Yarn:
        made = Yarn(str(number))
        alive.append(weakref.ref(made))
        if number == 3:
            cancellation.cancel()
        return made

    document = {"0": use("Make")} | {str(at): use("Make", number=at, yarn=[str(at - 1), 0]) for at in range(1, 9)}
    with pytest.raises(Cancelled):
        Loom(MemoryStore(0), extra=[make]).run(document, ["8"], cancellation=cancellation)
    gc.collect()
    assert len(alive) == 4 and not any(ref() is not None for ref in alive)


def test_cancelling_stops_at_the_next_report_of_progress():
    reached: list[float] = []

    @node("Walk")
    def walk(progress: Progress = INJECTED, cancellation: Cancellation = INJECTED) -> Yarn:
        for at in range(10):
            progress(at, 10, preview=f"at {at}")
            reached.append(at)
            if at == 3:
                cancellation.cancel()
        return Yarn()

    loom = Loom(extra=[walk])
    with pytest.raises(Cancelled):
        loom.run({"end": use("Walk")}, ["end"])
    assert reached == [0, 1, 2, 3]
    assert loom.events[2] == NodeProgressed("end", "Walk", None, None, 0, 10, "at 0")


def test_a_cancelled_run_does_not_start():
    cancellation = Cancellation()
    cancellation.cancel()
    loom = Loom()
    with pytest.raises(Cancelled):
        loom.run(WORKFLOW, cancellation=cancellation)
    assert loom.ran == []


def test_a_linked_literal_is_validated_when_it_arrives():
    document = {"number": use("Number", value=3), "end": use("Half", value=["number", 0])}
    assert Loom().value(document) == 1.5


def test_a_linked_literal_that_does_not_fit_fails_with_its_input():
    @node("Odd")
    def odd() -> Any:
        return "seven"

    result = Loom(extra=[odd]).run({"odd": use("Odd"), "end": use("Half", value=["odd", 0])}, ["end"])
    assert str(result.failures[0]).startswith("node end (Half) failed: input 'value': expected a number, found 'seven'")


def test_services_are_injected_and_a_missing_one_is_named():
    @dataclass
    class Dye(Service):
        colour: str

    @node("Dip")
    def dip(folders: Folders, dye: Dye = INJECTED) -> Yarn:
        return Yarn(f"{dye.colour} in {folders.data}")

    loom = Loom(extra=[dip])
    failed = loom.run({"end": use("Dip")}, ["end"])
    assert "the node needs the service Dye" in str(failed.failures[0])
    dipped = loom.run({"end": use("Dip")}, ["end"], services={Dye: Dye("green")})
    assert dipped.outputs["end"] == (Yarn("green in /nowhere"),)


def test_an_impure_node_and_what_follows_run_every_time():
    ran: list[int] = []

    @node("Dice", impure=True)
    def dice(sides: int = 6) -> int:
        ran.append(sides)
        return len(ran)

    loom = Loom(extra=[dice])
    document = {"dice": use("Dice"), "half": use("Half", value=["dice", 0]), "end": use("Half", value=["half", 0])}
    assert [loom.value(document), loom.value(document)] == [0.25, 0.5]


def test_a_function_that_changes_its_inputs_changes_nobody_elses():
    @node("Sort")
    def sort(values: list[int], options: dict[str, Any] = {}) -> int:  # noqa: B006  # the mistake that is tested
        values.append(0)
        options["seen"] = True
        return len(values) * 10 + len(options)

    loom = Loom(MemoryStore(0), extra=[sort])
    graph = graph_of(loom.nodes(), {"end": use("Sort", values={"__value__": [1, 2]})}, ["end"])
    results = [run(graph, loom.store, folders=NOWHERE).outputs["end"] for _ in range(2)]
    assert results == [(31,), (31,)]


def test_a_result_without_identity_fails_its_node_alone():
    class Thing(Value):
        pass

    @node("Odd")
    def odd(what: Any = None) -> Yarn: ...

    loom = Loom()
    graph = graph_of([*loom.nodes(), odd], WORKFLOW | {"odd": use("Odd")}, ["odd", "end"])
    broken = Step("odd", odd, {"what": Thing()}, {}, {})
    graph = type(graph)(tuple(broken if step.id == "odd" else step for step in graph.steps), graph.targets)
    result = run(graph, loom.store, folders=NOWHERE)
    assert [failure.node_id for failure in result.failures] == ["odd"]
    assert list(result.shown) == ["end"]


def test_runs_in_several_threads_share_a_store():
    store, cloths = MemoryStore(1 << 30), list[Any]()

    def work() -> None:
        cloths.append(Loom(store).value(chain(200), "199"))

    threads = [Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cloths == [Yarn()] * 8


def test_failures_describe_themselves():
    error = NodeError("3", "Spin", None, ValueError())
    assert str(error) == "node 3 (Spin) failed: ValueError"
    assert str(RunFailed((error, error))) == f"{error}\n{error}"


def test_what_is_made_quickly_from_what_was_made_quickly_is_kept_once_that_adds_up():
    kept: dict[str, float] = {}

    class Choosy(MemoryStore):
        least_seconds = 0.1

        def put(self, key: Key, outputs: Outputs, *, class_name: str = "", seconds: float = 0.0) -> None:
            if seconds >= self.least_seconds:
                kept[str(outputs[0])] = seconds
            super().put(key, outputs, class_name=class_name, seconds=seconds)

    @node("Slowly")
    def slowly(yarn: Yarn | None = None, number: int = 0) -> Yarn:
        time.sleep(0.005)
        return Yarn(str(number))

    document = {"0": use("Slowly")} | {str(at): use("Slowly", number=at, yarn=[str(at - 1), 0]) for at in range(1, 40)}
    Loom(Choosy(1 << 20), extra=[slowly]).run(document, ["39"]).checked()
    assert 1 <= len(kept) <= 20  # of forty: each stands for those before it
