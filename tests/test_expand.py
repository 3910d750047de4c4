import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from graph.cancellation import Cancellation
from graph.catalogue import Catalogue
from graph.errors import Cancelled
from graph.events import NodeFailed, NodeFinished, NodeProgressed
from graph.execute import run
from graph.folders import Folders
from graph.node import Known, composite, node
from graph.resolve import resolve
from graph.store import MemoryStore
from graph.values import INJECTED, Value
from graph.workflow import read
from tests.test_resolve import fetch
from tests.toys import Loom, Note, Pair, Yarn, use

ran: list[str] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


@node("Stretch", progress=True)
def stretch(yarn: Yarn, by: int = 1) -> Yarn:
    ran.append(f"stretch {by}")
    return Yarn(yarn.colour, yarn.length + by)


@node("Snap")
def snap(yarn: Yarn) -> Yarn:
    ran.append("snap")
    raise ValueError("the thread broke")


@node("Keep")
def keep(yarn: Yarn) -> Note:
    ran.append(f"keep {yarn.length}")
    return Note(yarn.colour)


@node("Dice", impure=True)
def dice() -> Yarn:
    ran.append("dice")
    return Yarn(length=len(ran))


@composite("Steps")
def steps(yarn: Yarn, count: int = 3) -> Yarn:
    ran.append("steps")
    for at in range(count):
        yarn = stretch(yarn, by=at)
    return yarn


@composite("Nested")
def nested(yarn: Yarn, count: int = 2) -> Pair:
    once = steps(yarn, count)
    return Pair(once, steps(once, count))


def world(*more: Any) -> Loom:
    return Loom(extra=[stretch, snap, keep, dice, steps, nested, fetch, *more])


def whole(class_type: str, **inputs: Any) -> dict[str, Any]:
    """A spun yarn and a composite that takes it."""
    return {"spin": use("Spin"), "end": use(class_type, yarn=["spin", 0], **inputs)}


def failure(function: Callable[..., Any], impure: bool = False) -> str:
    """Why a composite cannot be expanded."""
    loom = world(composite("Bad", impure=impure)(function))
    (found,) = loom.run(whole("Bad"), ["end"]).failures
    return str(found)


def test_a_composite_is_the_nodes_it_calls():
    loom = world()
    assert loom.value(whole("Steps")) == Yarn("red", 4)
    assert ran == ["steps", "stretch 0", "stretch 1", "stretch 2"]
    assert [text for text in loom.told() if text.startswith(("NodeStarted", "NodeFinished"))] == [
        "NodeStarted spin",
        "NodeFinished spin",
        "NodeStarted end",
        *(f"{kind} end.{at}" for at in range(3) for kind in ("NodeStarted", "NodeFinished")),
        "NodeFinished end",
    ]


def test_composites_nest():
    loom = world()
    result = loom.run(whole("Nested"), ["end"]).checked()
    assert result.outputs["end"] == (Yarn("red", 2), Yarn("red", 3))
    assert {event.node_id: event.parent for event in loom.events if isinstance(event, NodeFinished)} == {
        "spin": None,
        "end": None,
        "end.0": "end",
        "end.1": "end",
        **{f"end.{outer}.{inner}": f"end.{outer}" for outer in range(2) for inner in range(2)},
    }


def test_what_is_known_is_not_expanded_again():
    loom = world()
    loom.value(whole("Nested"))
    ran.clear()
    loom.value(whole("Nested"))
    assert ran == []


def test_only_missing_steps_run():
    loom = world()
    loom.value(whole("Steps", count=3))
    ran.clear()
    loom.value(whole("Steps", count=5))
    assert ran == ["steps", "stretch 3", "stretch 4"]


def test_steps_are_shared_with_nodes_in_the_document():
    loom = world()
    loom.value(whole("Stretch", by=0))
    ran.clear()
    loom.value(whole("Steps"))
    assert ran == ["steps", "stretch 1", "stretch 2"]


def test_identical_composites_are_expanded_once():
    loom = world()
    loom.value(
        {
            **whole("Steps"),
            "other": use("Steps", yarn=["spin", 0]),
            "end": use("Weave", warp=["other", 0], weft=["third", 0]),
            "third": use("Steps", yarn=["spin", 0]),
        }
    )
    assert ran == ["steps", "stretch 0", "stretch 1", "stretch 2"]


def test_steps_are_the_same_one_by_one_or_in_one_composite():
    @composite("Step")
    def step(yarn: Yarn, at: int) -> Yarn:
        return stretch(yarn, by=at)

    loom = world(step)
    loom.value(whole("Steps", count=4))
    ran.clear()
    document: dict[str, Any] = {"spin": use("Spin"), "0": use("Step", yarn=["spin", 0], at=0)}
    document |= {str(at): use("Step", yarn=[str(at - 1), 0], at=at) for at in range(1, 4)}
    loom.value(document, "2")
    assert ran == []
    assert loom.value(document, "3") == Yarn("red", 7)
    assert ran == []


def test_progress_counts_the_steps_that_are_there_already():
    loom = world()
    loom.value(whole("Steps", count=3))
    loom.value(whole("Steps", count=5))
    ticks = [(event.node_id, event.value, event.maximum) for event in loom.events if isinstance(event, NodeProgressed)]
    assert ticks == [("end", 3, 5), ("end", 4, 5), ("end", 5, 5)]


def test_an_input_may_be_passed_through():
    assert world().value(whole("Steps", count=0)) == Yarn("red", 1)


def test_a_composite_may_know_its_result():
    class Two(NamedTuple):
        yarn: Yarn
        number: int

    @composite("Know")
    def know(yarn: Known[Yarn], number: int = 7) -> Two:
        return Two(Yarn("made here", yarn.length), number)

    result = world(know).run(whole("Know"), ["end"]).checked()
    assert result.outputs["end"] == (Yarn("made here", 1), 7)


def test_known_inputs_can_be_looked_at_without_changing_keys():
    @composite("Look")
    def look(yarn: Known[Yarn], other: Yarn | None = None) -> Yarn:
        return stretch(yarn, by=yarn.length - 1)

    loom = world(look)
    loom.value(whole("Stretch", by=0))
    ran.clear()
    loom.value(whole("Look"))
    assert ran == []


def test_linked_literals_are_known():
    document = whole("Steps", count=["number", 0]) | {"number": use("Number", value=2)}
    assert world().value(document) == Yarn("red", 2)
    assert ran == ["steps", "stretch 0", "stretch 1"]


def test_a_value_may_be_narrowed_by_looking():
    @composite("Narrow")
    def narrow(yarn: Known[Value]) -> Yarn:
        assert isinstance(yarn, Yarn)
        return stretch(yarn)

    assert world(narrow).value(whole("Narrow")) == Yarn("red", 2)


def test_steps_that_nobody_needs_do_not_run():
    @composite("Idle")
    def idle(yarn: Yarn) -> Yarn:
        snap(yarn)
        return stretch(yarn)

    assert world(idle).value(whole("Idle")) == Yarn("red", 2)


def test_output_nodes_in_a_composite_run_every_time():
    @composite("KeepBoth")
    def keep_both(yarn: Yarn) -> Note:
        keep(stretch(yarn, by=1))
        return keep(stretch(yarn, by=2))

    loom = world(keep_both)
    loom.run(whole("KeepBoth")).checked()
    assert sorted(ran) == ["keep 2", "keep 3", "stretch 1", "stretch 2"]
    ran.clear()
    result = loom.run(whole("KeepBoth")).checked()
    assert ran == ["keep 2", "keep 3"]
    assert result.shown == {"end.1": Note("red"), "end.3": Note("red")}


def test_a_composite_that_acts_on_the_world_must_say_so():
    def quiet(yarn: Yarn) -> Yarn:
        keep(yarn)
        return yarn

    def empty(yarn: Yarn) -> Note:
        return Note("made here")

    assert "calls Keep, which acts on the world" in failure(quiet)
    assert "calls no node that does" in failure(empty)


def test_a_composite_of_impure_nodes_must_say_so():
    def hidden(yarn: Yarn) -> Yarn:
        return dice()

    assert "calls Dice, whose result may differ from run to run: declare it impure" in failure(hidden)
    loom = world(composite("Open", impure=True)(hidden))
    assert loom.value(whole("Open")).length + 1 == loom.value(whole("Open")).length


def test_a_composite_must_not_choose_a_file_itself(tmp_path: Path):
    @composite("Chosen")
    def chosen() -> Yarn:
        return fetch(file="a.txt")

    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "a.txt").write_text("wool")
    folders = Folders.below(tmp_path)
    graph = resolve(read({"end": use("Chosen")}), Catalogue([chosen, fetch]), folders, ["end"])
    (found,) = run(graph, MemoryStore(1000), folders=folders).failures
    assert "chooses a file itself (file of Fetch): take the name as an input" in str(found)


def test_an_error_inside_names_the_step_and_the_composite():
    @composite("Rough")
    def rough(yarn: Yarn) -> Yarn:
        return snap.titled("Pull")(stretch(yarn))

    loom = world(rough)
    result = loom.run(whole("Rough") | {"after": use("Show", what=["end", 0])})
    (found,) = result.failures
    assert str(found) == "node end (Rough) failed: node end.1 (Snap “Pull”) failed: ValueError: the thread broke"
    assert [event.node_id for event in loom.events if isinstance(event, NodeFailed)] == ["end.1", "end"]


def test_what_a_failed_composite_made_is_reused():
    @composite("Rough")
    def rough(yarn: Yarn) -> Yarn:
        return snap(stretch(yarn))

    loom = world(rough)
    for _ in range(2):
        ran.clear()
        loom.run(whole("Rough"), ["end"])
    assert ran == ["snap"]


def test_cancelling_stops_inside_a_composite():
    cancellation, loom = Cancellation(), world()

    def stop(event: object) -> None:
        if isinstance(event, NodeProgressed) and event.value == 2:
            cancellation.cancel()

    with pytest.raises(Cancelled):
        loom.run(whole("Steps", count=9), ["end"], cancellation=cancellation, emit=stop)
    assert ran == ["steps", "stretch 0", "stretch 1"]


def test_without_room_in_the_store_composites_still_run():
    loom = world()
    loom.store = MemoryStore(0)
    assert loom.run(whole("Nested"), ["end"]).checked().outputs["end"][1] == Yarn("red", 3)


def test_ids_of_the_document_may_look_like_those_inside():
    document = whole("Weave", warp=["end.0", 0], weft=["7", 0]) | {
        "7": use("Steps", yarn=["spin", 0], count=2),
        "7.0": use("Spin", colour="blue"),
        "end.0": use("Twist", a=["7.0", 0]),
    }
    cloth = world().value(document)
    assert [(thread.colour, thread.length) for thread in cloth.threads] == [("blue", 1), ("red", 2)]


def test_a_chain_of_2000_composites_runs():
    document = {"0": use("Spin")} | {str(at): use("Steps", yarn=[str(at - 1), 0], count=1) for at in range(1, 2001)}
    assert world().value(document, "2000") == Yarn("red", 1)


def test_a_composite_of_5000_steps_runs():
    world().value(whole("Steps", count=5000))
    assert len(ran) == 5001


def test_a_composite_that_calls_itself_without_end_is_stopped():
    @composite("Endless")
    def endless(yarn: Yarn, depth: int = 0) -> Yarn:
        return endless(yarn, depth + 1)

    (found,) = world(endless).run(whole("Endless"), ["end"]).failures
    assert "nested more than 1000 deep; does one call itself?" in str(found)
    assert len(str(found)) < 400


def test_services_are_injected_into_composites():
    @composite("Where")
    def where(yarn: Yarn, folders: Folders = INJECTED) -> Yarn:
        return stretch(yarn, by=len(str(folders.data)))

    assert world(where).value(whole("Where")) == Yarn("red", 9)


def test_a_link_cannot_be_looked_at():
    def truth(yarn: Yarn) -> Yarn:
        return yarn if yarn else yarn

    def attribute(yarn: Yarn) -> Yarn:
        return stretch(yarn, by=yarn.length)

    advice = re.escape("pass it on to a node, or, in a composite, declare the parameter as Known[...]")
    assert re.search(f"not computed yet, so its truth cannot be read here: {advice}", failure(truth))
    assert re.search(f"not computed yet, so 'length' cannot be read here: {advice}", failure(attribute))


def test_a_link_from_another_composite_is_refused():
    kept: list[Yarn] = []

    @composite("Leak")
    def leak(yarn: Yarn) -> Yarn:
        kept.append(stretch(yarn))
        return stretch(kept[0])

    loom = world(leak)
    document = {**whole("Leak"), "other": use("Leak", yarn=["end", 0])}
    (found,) = loom.run(document, ["other"]).failures
    assert "was made in another workflow or composite" in str(found)


def test_what_a_composite_passes_on_must_fit():
    def wrong(yarn: Yarn) -> Yarn:
        return stretch(yarn, by=yarn)  # pyright: ignore  # the mistake that is tested

    def fresh(yarn: Yarn) -> Yarn:
        return stretch(Yarn())

    def odd(yarn: Yarn) -> Yarn:
        return stretch(yarn, by=7.5)  # pyright: ignore  # the mistake that is tested

    def short(yarn: Yarn) -> Yarn:
        return stretch()  # pyright: ignore  # the mistake that is tested

    assert "passes 'by' of Stretch YARN (yarn), but it takes INT" in failure(wrong)
    assert "passes 'yarn' of Stretch a Yarn made on the spot" in failure(fresh)
    assert "Bad calls Stretch with 'by': expected a whole number, found 7.5" in failure(odd)
    assert "Stretch needs an input 'yarn'" in failure(short)


def test_what_a_composite_returns_must_fit():
    def nothing(yarn: Yarn) -> Yarn: ...

    def number(yarn: Yarn) -> Yarn:
        return 7  # pyright: ignore  # the mistake that is tested

    def few(yarn: Yarn) -> Pair:
        return (yarn,)  # pyright: ignore  # the mistake that is tested

    assert "it should return YARN as output 'YARN', but it returned None" in failure(nothing)
    assert "it should return YARN as output 'YARN', but it returned an int" in failure(number)
    assert "it should return 2 outputs, but it returned a tuple of 1" in failure(few)


def test_a_node_called_by_an_ordinary_node_just_runs():
    @node("Direct")
    def direct(yarn: Yarn) -> Yarn:
        return steps(stretch(yarn, by=5), count=1)

    assert world(direct).value(whole("Direct")) == Yarn("red", 6)
    assert steps(Yarn(), count=2) == Yarn("red", 2)
