"""Which way a workflow goes (wire_protocol.md §10.2, §10.5 to §10.7): order, blocking, laziness, expansion."""

from typing import Any, NamedTuple

import pytest

from graph.errors import NodeError
from graph.events import NodeFailed, NodeSkipped, NodeStarted, RunFinished
from graph.lists import blocked
from graph.node import Whole, composite, node
from graph.store import MemoryStore
from nodes import flow
from tests.beads import Bead, Halves, Shown, Tray, chip, grow, halve, join, polish, roll, show, sieve
from tests.toys import use

ONE = {"one": use("Bead", number=1), "two": use("Bead", number=2)}
SHUT = ONE | {"shut": use("Gate", value=["one", 0], open=False)}


# Order (§10.2).


def test_ready_steps_start_in_the_order_of_the_plan():
    document = {str(at): use("Bead", number=at) for at in (3, 1, 2)} | {
        "early": use("Join", a=["2", 0]),
        "late": use("Join", a=["1", 0], b=["3", 0]),
        "end": use("Join", a=["late", 0], b=["early", 0]),
    }
    tray = Tray()
    tray.run(document, "end")
    assert [event.node_id for event in tray.events if isinstance(event, NodeStarted)] == [
        *("1", "3", "late", "2", "early", "end"),
    ]


def test_what_a_composite_stands_for_comes_in_its_place():
    document = ONE | {
        "grow": use("Grow", bead=["one", 0]),
        "after": use("Join", a=["two", 0], plus=7),
        "end": use("Join", a=["grow", 0], b=["after", 0]),
    }
    tray = Tray()
    tray.end(document)
    assert [event.node_id for event in tray.events if isinstance(event, NodeStarted)] == [
        *("one", "grow", "grow.0", "grow.1", "two", "after", "end"),
    ]


# Blocking (§10.5).


def test_what_needs_something_blocked_is_not_run_and_blocks_in_turn():
    document = SHUT | {
        "halve": use("Halve", bead=["shut", 0]),
        "join": use("Join", a=["one", 0], b=["halve", 1]),
        "end": use("Show", what=["join", 0]),
    }
    tray = Tray()
    result = tray.run(document)
    assert (tray.ran, result.shown, result.failures) == (["Bead"], {}, ())


def test_a_run_with_blocked_outputs_is_ok_and_the_others_show_what_they_have():
    tray = Tray()
    assert tray.shown(SHUT | {"no": use("Show", what=["shut", 0]), "yes": use("Show", what=["one", 0])}) == [
        "Bead(number=1)"
    ]
    assert tray.events[-1] == RunFinished("ok", pytest.approx(0, abs=60))  # pyright: ignore  # pytest types approx bare


def test_why_is_told_where_it_first_stops_a_node_and_then_no_more():
    document = ONE | {
        "sieve": use("Sieve", bead=["one", 0]),
        "join": use("Join", a=["sieve", 0]),
        "after": use("Join", a=["join", 0]),
        "end": use("Show", what=["after", 0]),
    }
    tray = Tray()
    for _ in range(2):
        tray.run(document)
        assert [(event.node_id, event.message) for event in tray.events if isinstance(event, NodeSkipped)] == [
            *(("join", "too small"), ("after", None), ("end", None)),
        ]


def test_a_node_may_block_all_its_outputs_or_some():
    @node("Some")
    def some(bead: Bead) -> Halves:
        return Halves(bead, blocked(), 1)

    @node("None")
    def none(bead: Bead) -> Halves:
        return blocked("nothing here")

    tray = Tray(extra=[some, none])
    for class_type, expected in (("Some", ["Join"]), ("None", [])):
        document = ONE | {
            "halves": use(class_type, bead=["one", 0]),
            "low": use("Join", a=["halves", 0]),
            "high": use("Join", a=["halves", 1]),
        }
        tray.run(document, "low", "high").checked()
        assert [name for name in tray.ran if name == "Join"] == expected


def test_a_blocked_item_skips_its_call_alone():
    document = ONE | {
        "list": use("Scatter", bead=["one", 0], count=3),
        "sieve": use("Sieve", bead=["list", 0]),
        "end": use("Show", what=["sieve", 0]),
    }
    assert Tray().shown(document) == ["Bead(number=2)", "Bead(number=3)"]


def test_a_blocked_item_keeps_its_place():
    document = ONE | {
        "list": use("Scatter", bead=["one", 0], count=3),
        "sieve": use("Sieve", bead=["list", 0]),
        "join": use("Join", a=["sieve", 0], b=["list", 0]),
        "end": use("ListItem", items=["join", 0], index=2),
        "count": use("NumberRange", stop=3),
        "show": use("Show", what=["join", 0]),
    }
    assert Tray().shown(document) == ["Bead(number=4)", "Bead(number=6)"]


def test_one_blocked_item_blocks_a_call_that_takes_many():
    document = ONE | {
        "list": use("Scatter", bead=["one", 0], count=3),
        "sieve": use("Sieve", bead=["list", 0]),
        "end": use("Thread", beads=["sieve", 0]),
        "show": use("Show", what=["end", 0]),
    }
    tray = Tray()
    assert tray.shown(document) == []
    assert "Thread" not in tray.ran


def test_a_composite_is_blocked_by_what_it_looks_at_and_not_by_what_it_passes_on():
    @composite("First")
    def first(a: Bead, b: Bead) -> Bead:
        return grow(a, 1)

    tray = Tray(extra=[first])
    tray.run(SHUT | {"look": use("Look", bead=["shut", 0]), "end": use("Show", what=["look", 0])})
    assert tray.ran == []
    assert tray.shown(
        SHUT | {"first": use("First", a=["two", 0], b=["shut", 0]), "end": use("Show", what=["first", 0])}
    )


def test_a_composite_gives_what_is_blocked_inside_of_it():
    @composite("Strict")
    def strict(bead: Bead) -> Halves:
        return Halves(join(sieve(bead)), bead, 3)

    tray = Tray(extra=[strict])
    document = ONE | {"strict": use("Strict", bead=["one", 0])}
    document |= {"a": use("Show", what=["strict", 0]), "b": use("Show", what=["strict", 1])}
    assert tray.shown(document) == ["Bead(number=1)"]


def test_a_composite_may_block_its_output_itself():
    @composite("Refuse")
    def refuse(bead: Bead) -> Bead:
        return blocked("not today")

    tray = Tray(extra=[refuse])
    for _ in range(2):
        tray.run(ONE | {"no": use("Refuse", bead=["one", 0]), "end": use("Show", what=["no", 0])}).checked()
        assert [event.message for event in tray.events if isinstance(event, NodeSkipped)] == ["not today"]
    assert tray.ran == []


def test_a_failure_counts_more_than_a_block():
    document = SHUT | {
        "three": use("Bead", number=3),
        "chip": use("Chip", bead=["three", 0]),
        "end": use("Join", a=["shut", 0], b=["chip", 0]),
    }
    tray = Tray()
    assert [failure.node_id for failure in tray.run(document, "end").failures] == ["chip"]


def test_an_open_gate_is_as_if_it_were_not_there():
    tray = Tray()
    tray.end(ONE | {"end": use("Join", a=["one", 0])})
    tray.end(ONE | {"gate": use("Gate", value=["one", 0]), "end": use("Join", a=["gate", 0])})
    assert tray.ran == []


# Laziness (§10.6).


def switched(on: Any, **more: Any) -> dict[str, Any]:
    return ONE | more | {"end": use("Switch", on=on, if_true=["one", 0], if_false=["two", 0])}


@pytest.mark.parametrize(("on", "expected"), [(True, 1), (False, 2)])
def test_the_branch_that_is_not_taken_does_not_run(on: bool, expected: int):
    tray = Tray()
    assert tray.end(switched(on)) == expected
    assert tray.calls == [("Bead", expected)]


def test_the_branch_that_is_not_taken_may_be_broken():
    three = {"three": use("Bead", number=3), "chip": use("Chip", bead=["three", 0])}
    document = ONE | three | {"end": use("Switch", on=False, if_true=["chip", 0], if_false=["two", 0])}
    assert Tray().end(document) == 2


def test_which_branch_is_taken_may_be_computed():
    tray = Tray()
    weigh = {"weigh": use("Weigh", bead=["two", 0]), "test": use("Compare", a=["weigh", 0], comparison=">", b=1)}
    assert tray.end(switched(["test", 0], **weigh)) == 1
    assert tray.ran == ["Bead", "Weigh", "Bead"]


def test_switches_decide_for_switches_one_after_the_other():
    document = ONE | {
        "a": use("Weigh", bead=["one", 0]),
        "inner": use("Choose", index=["a", 0], input_0=["no", 0], input_1=["two", 0]),
        "no": use("Roll", bead=["one", 0]),
        "b": use("Weigh", bead=["inner", 0]),
        "end": use("Choose", index=["b", 0], input_1=["no", 0], input_2=["inner", 0]),
    }
    tray = Tray()
    assert tray.end(document) == 2
    assert "Roll" not in tray.ran


def test_what_both_branches_and_others_need_is_made_once():
    document = ONE | {
        "roll": use("Roll", bead=["one", 0]),
        "a": use("Join", a=["roll", 0]),
        "b": use("Join", a=["roll", 0], plus=1),
        "weigh": use("Weigh", bead=["roll", 0]),
        "test": use("Compare", a=["weigh", 0], comparison="==", b=3),
        "way": use("Switch", on=["test", 0], if_true=["a", 0], if_false=["b", 0]),
        "end": use("Join", a=["way", 0], b=["roll", 0]),
    }
    for store in (MemoryStore(1 << 30), MemoryStore(0)):
        tray = Tray(store)
        assert tray.end(document) == 6
        assert (tray.ran.count("Roll"), tray.ran.count("Join")) == (1, 2)


def test_what_is_not_connected_and_not_taken_is_not_missed():
    assert Tray().end(ONE | {"end": use("Choose", index=1, input_1=["two", 0])}) == 2


def test_what_is_not_connected_and_taken_is_named():
    found = str(Tray().failure(ONE | {"end": use("Choose", index=4, input_1=["two", 0])}))
    assert "node end (Choose) failed: ValueError: the input 'input_4' is to be passed on, but nothing is" in found


def test_a_switch_passes_on_a_whole_list():
    document = ONE | {
        "list": use("Scatter", bead=["one", 0], count=3),
        "end": use("Switch", on=True, if_true=["list", 0], if_false=["two", 0]),
    }
    assert Tray().end(document) == [1, 2, 3]


def test_a_switch_switches_for_each_item_of_a_list_of_answers():
    document = ONE | {
        "numbers": use("NumberRange", stop=3),
        "test": use("Compare", a=["numbers", 0], comparison="==", b=1),
        "end": use("Switch", on=["test", 0], if_true=["one", 0], if_false=["two", 0]),
    }
    assert Tray().end(document) == [2, 1, 2]


def test_a_literal_may_be_switched():
    document = ONE | {"end": use("Switch", on=False, if_true=["one", 0], if_false=7)}
    assert Tray().end(document) == 7


def test_a_composite_takes_only_what_it_passes_on():
    @composite("First")
    def first(a: Whole[Bead], b: Whole[Bead]) -> Bead:
        return a

    tray = Tray(extra=[first])
    document = ONE | {"three": use("Bead", number=3), "chip": use("Chip", bead=["three", 0])}
    assert tray.end(document | {"end": use("First", a=["two", 0], b=["chip", 0])}) == 2
    assert tray.calls == [("Bead", 2)]


# Expansion (§10.7).


def test_composites_may_expand_again_and_again():
    tray = Tray()
    assert tray.end(ONE | {"many": use("Bead", number=95), "end": use("Descend", bead=["many", 0])}) == 4
    assert tray.ran.count("Halve") == 4


def test_output_nodes_inside_composites_run():
    assert Tray().shown(ONE | {"end": use("ShowTwice", bead=["two", 0])}) == ["Bead(number=0)", "Bead(number=3)"]


def test_an_error_inside_is_reported_where_the_document_has_it():
    document = ONE | {"end": use("Fork", bead=["two", 0], times=1)}
    (found,) = Tray().run(document, "end").failures
    assert found.node_id == "end"
    assert isinstance(found.__cause__, NodeError)
    assert found.__cause__.node_id == "end.2"


def test_a_composite_that_expands_into_itself_fails_and_the_run_says_so():
    @composite("Round")
    def round_about(bead: Bead) -> Bead:
        return round_about(bead)

    tray = Tray(extra=[round_about])
    found = tray.failure(ONE | {"end": use("Round", bead=["one", 0])})
    assert "node end (Round) expands into itself, with the very same inputs" in str(found)
    assert tray.events[-1] == RunFinished("failed", pytest.approx(0, abs=60))  # pyright: ignore  # pytest types approx bare


def test_an_impure_node_inside_is_called_once_in_a_run():
    @composite("Rolled", impure=True)
    def rolled(bead: Bead) -> Halves:
        rolled = roll(bead)
        return Halves(rolled, join(rolled, rolled), 1)

    tray = Tray(MemoryStore(0), extra=[rolled])
    document = ONE | {"rolled": use("Rolled", bead=["one", 0]), "end": use("Join", a=["rolled", 0], b=["rolled", 1])}
    assert tray.end(document) == 9
    assert tray.ran.count("Roll") == 1


def test_a_step_may_be_the_same_as_one_in_what_it_waits_for():
    """`end` is the very step whose result the composite gives as its other output."""

    class Both(NamedTuple):
        first: Bead
        second: Bead

    @composite("Both")
    def both(bead: Bead) -> Both:
        return Both(bead, join(join(bead, plus=1), plus=2))

    document = ONE | {"both": use("Both", bead=["one", 0]), "end": use("Join", a=["both", 0], plus=1)}
    for store in (MemoryStore(1 << 30), MemoryStore(0)):
        assert Tray(store, extra=[both]).end(document) == 2


def test_a_step_that_failed_fails_wherever_it_stands_and_is_called_once():
    document = ONE | {
        "three": use("Bead", number=3),
        "a": use("Chip", bead=["three", 0]),
        "b": use("Chip", bead=["three", 0]),
    }
    tray = Tray()
    assert {failure.node_id for failure in tray.run(document, "a", "b").failures} == {"a", "b"}
    assert tray.ran == ["Bead", "Chip"]
    assert {event.node_id for event in tray.events if isinstance(event, NodeFailed)} == {"a", "b"}


def test_what_ran_to_name_what_a_composite_gives_is_kept_until_that_is_made():
    """What follows goes by the content of what is polished, which is found out before anybody wants the composite."""

    @composite("Polished")
    def polished(bead: Bead) -> Bead:
        return join(polish(grow(bead, 1)), plus=1)

    document = ONE | {"polished": use("Polished", bead=["two", 0]), "end": use("Join", a=["polished", 0], plus=1)}
    tray = Tray(MemoryStore(0), extra=[polished])
    assert tray.end(document) == 2
    assert tray.ran == ["Bead", "Join", "Polish", "Join", "Join"]


# The nodes that decide.


@pytest.mark.parametrize(
    ("comparison", "expected"),
    [("<", True), ("<=", True), ("==", False), ("!=", True), (">=", False), (">", False)],
)
def test_compare(comparison: Any, expected: bool):
    assert flow.compare(1, comparison, 2.5) is expected


def test_not():
    assert flow.negate(False) is True
    assert flow.negate(True) is False


@pytest.mark.parametrize(
    ("operation", "number", "whole"),
    [
        *(("+", 9.5, 10), ("-", 4.5, 4), ("*", 17.5, 18), ("/", 2.8, 3)),
        *(("%", 2.0, 2), ("min", 2.5, 2), ("max", 7.0, 7), ("power", 129.64181424216494, 130)),
    ],
)
def test_calculate(operation: Any, number: float, whole: int):
    assert flow.calculate(7.0, operation, 2.5) == (pytest.approx(number), whole)


@pytest.mark.parametrize(
    ("a", "operation", "b", "reason"),
    [
        (1.0, "/", 0.0, "b is 0, and nothing can be divided by that"),
        (1.0, "%", 0.0, "b is 0, and nothing can be divided by that"),
        (-8.0, "power", 0.5, "a negative number has no real power of this kind"),
        (0.0, "power", -1.0, "0 has no power below 0"),
        (10.0, "power", 400.0, "too large"),
        (1e300, "*", 1e300, "too large"),
    ],
)
def test_what_cannot_be_calculated_is_refused(a: float, operation: Any, b: float, reason: str):
    with pytest.raises(ValueError, match=reason):
        flow.calculate(a, operation, b)


def test_shown_is_what_output_nodes_give():
    assert show(Bead(1)) == Shown("Bead(number=1)")
    assert halve(Bead(3)).high == Bead(2)
    with pytest.raises(ValueError, match="it broke"):
        chip(Bead(3))
