"""Loops in a document: what lies between a start and an end is run turn by turn."""

import gc
import weakref
from typing import Any

import pytest

from graph.events import NodeProgressed
from graph.node import Many, composite, node
from graph.resolve import Step
from graph.store import MemoryStore
from nodes.flow import for_each, for_each_end
from tests.beads import NODES, Bead, Tray, join
from tests.toys import problems_of, use

LIST = {"one": use("Bead", number=10), "list": use("Scatter", bead=["one", 0], count=3)}


def each(body: dict[str, Any], items: int = 3, **end: Any) -> dict[str, Any]:
    """A loop over beads 10, 11, 12 …; its start is `each`."""
    return {
        "one": use("Bead", number=10),
        "list": use("Scatter", bead=["one", 0], count=items),
        "each": use("ForEach", items=["list", 0], carried=["one", 0]),
        **body,
        "end": use("ForEachEnd", loop=["each", 0], **end),
    }


def repeat(body: dict[str, Any], below: int = 3, *, a: Any = None, **end: Any) -> dict[str, Any]:
    """A loop for as long as the number of the turn, or another one, is below this; its start is `while`."""
    return {
        "one": use("Bead", number=10),
        "while": use("While", state=["one", 0], state_2=["one", 0]),
        **body,
        "test": use("Compare", a=a or ["while", 1], comparison="<", b=below),
        "end": use("WhileEnd", loop=["while", 0], condition=["test", 0], **end),
    }


ADD = {"add": use("Join", a=["each", 1], plus=["each", 2])}
SUM = {"sum": use("Join", a=["each", 4], b=["each", 1])}
GROW = {"grow": use("Join", a=["while", 2], plus=1)}


def test_for_each_makes_a_list_of_what_its_turns_make():
    tray = Tray()
    assert tray.end(each(ADD, result=["add", 0])) == [10, 12, 14]
    assert tray.ran == ["Bead", "Scatter", "Join", "Join", "Join"]


def test_a_turn_knows_its_number_and_how_many_there_are():
    add = {"add": use("Join", a=["each", 1], plus=["each", 3])}
    assert Tray().end(each(add, result=["add", 0])) == [13, 14, 15]


def test_what_is_carried_goes_from_turn_to_turn():
    result = Tray().run(each(SUM, result=["sum", 0], carried=["sum", 0]), "end").checked().outputs["end"]
    assert [bead.number for bead in result[0].values] == [20, 31, 43]  # pyright: ignore  # outputs are of any type
    assert result[1] == Bead(43)


def test_what_is_carried_comes_out_as_it_went_in_if_nothing_changes_it():
    assert Tray().run(each(ADD, result=["add", 0]), "end").checked().outputs["end"][1] == Bead(10)


def test_an_empty_list_has_no_turns():
    tray = Tray()
    result = tray.run(each(SUM, items=0, result=["sum", 0], carried=["sum", 0]), "end").checked().outputs["end"]
    assert (result[0].values, result[1]) == ((), Bead(10))  # pyright: ignore  # outputs are of any type
    assert "Join" not in tray.ran


def test_what_is_no_list_has_one_turn():
    document = each(ADD, result=["add", 0]) | {"each": use("ForEach", items=["one", 0])}
    assert Tray().end(document) == [10]


def test_items_may_be_written_in_the_document():
    document = {
        "each": use("ForEach", items={"__value__": [3, 1]}),
        "bead": use("Bead", number=["each", 1]),
        "end": use("ForEachEnd", loop=["each", 0], result=["bead", 0]),
    }
    assert Tray().end(document) == [3, 1]


def test_lists_that_turns_make_are_put_end_to_end():
    more = {"more": use("Scatter", bead=["each", 1], count=2)}
    assert Tray().end(each(more, result=["more", 0])) == [10, 11, 11, 12, 12, 13]


def test_a_result_from_outside_is_repeated():
    assert Tray().end(each({}, result=["one", 0])) == [10, 10, 10]


def test_a_loop_runs_again_only_the_turns_that_changed():
    tray = Tray()
    document = each({"grow": use("Grow", bead=["each", 1], times=1)}, result=["grow", 0])
    tray.end(document)
    tray.end(document)
    assert tray.ran == []
    tray.end(each({"grow": use("Grow", bead=["each", 1], times=1)}, items=4, result=["grow", 0]))
    assert tray.calls == [("Scatter", Bead(10), 4), ("Join", Bead(10), None, 1), *tray.calls[2:]]


def test_turns_over_known_items_are_found_one_by_one():
    def document(*numbers: int) -> dict[str, Any]:
        beads: dict[str, Any] = {str(at): use("Bead", number=number) for at, number in enumerate(numbers)}
        items: dict[str, Any] = {f"item_{at + 1}": [str(at), 0] for at in range(len(numbers))}
        return beads | {
            "list": use("MakeList", **items),
            "each": use("ForEach", items=["list", 0]),
            "grow": use("Join", a=["each", 1], plus=1),
            "end": use("ForEachEnd", loop=["each", 0], result=["grow", 0]),
        }

    tray = Tray()
    tray.end(document(1, 2, 3))
    assert tray.end(document(3, 1, 5)) == [4, 2, 6]
    assert tray.calls == [("Bead", 5), ("Join", Bead(5), None, 1)]


def test_a_failing_turn_fails_its_loop_and_the_others_are_kept():
    tray = Tray()
    document = each({"chip": use("Chip", bead=["each", 1])}, items=5, result=["chip", 0])
    expected = "node end (ForEachEnd) failed: node end.3.chip (Chip) failed: ValueError: it broke"
    assert str(tray.failure(document)) == expected
    tray.failure(document)
    assert tray.calls == [("Chip", Bead(13))]


def test_a_blocked_turn_is_a_blocked_item():
    document = each({"sieve": use("Sieve", bead=["each", 1])}, items=5, result=["sieve", 0])
    after = use("Join", a=["end", 0], plus=1)
    tray = Tray()
    tray.run(document | {"after": after}, "after").checked()
    assert [given for name, given, *_ in tray.calls if name == "Join"] == [Bead(10), Bead(11), Bead(12), Bead(14)]


def test_blocked_items_block_the_loop():
    document = each(ADD, result=["add", 0]) | {"shut": use("Gate", value=["one", 0], open=False)}
    document["each"] = use("ForEach", items=["shut", 0])
    tray = Tray()
    assert tray.shown(document | {"show": use("Show", what=["end", 0])}) == []
    assert tray.ran == []


def test_while_runs_as_long_as_its_condition_holds():
    result = Tray().run(repeat(GROW, state=["grow", 0]), "end").checked().outputs["end"]
    assert result == (Bead(13), Bead(10), None, 3)


def test_while_looks_at_its_condition_first():
    tray = Tray()
    assert tray.end(repeat(GROW, below=0, state=["grow", 0])) == 10
    assert "Join" not in tray.ran


def test_while_may_look_at_what_it_carries():
    weigh = {"weigh": use("Weigh", bead=["while", 2])}  # 10, 11, 12 … weigh 0, 1, 2 …
    result = Tray().run(repeat(GROW | weigh, below=4, a=["weigh", 0], state=["grow", 0]), "end").checked()
    assert result.outputs["end"][0] == Bead(14)


def test_all_states_go_to_the_next_turn_together():
    swap = {"sum": use("Join", a=["while", 2], b=["while", 3])}
    result = Tray().run(repeat(swap, state=["while", 3], state_2=["sum", 0]), "end").checked().outputs["end"]
    assert result[:2] == (Bead(30), Bead(50))


def test_a_condition_that_depends_on_nothing_is_stopped():
    document = repeat(GROW, state=["grow", 0], most_turns=5)
    document["end"]["inputs"]["condition"] = True
    found = Tray().failure(document)
    assert "its condition still holds after 5 turns; raise most_turns if that is meant" in str(found)


def test_the_most_turns_may_come_by_a_link():
    document = repeat(GROW, state=["grow", 0], most_turns=["most", 0]) | {
        "two": use("Bead", number=2),
        "most": use("Weigh", bead=["two", 0]),
    }
    assert "still holds after 2 turns" in str(Tray().failure(document))


def test_a_condition_that_is_a_list_is_refused():
    document = repeat(GROW, a=["numbers", 0], state=["grow", 0]) | {"numbers": use("NumberRange", stop=2)}
    assert "input 'condition': expected true or false, found a list of 2" in str(Tray().failure(document))


def test_a_blocked_condition_blocks_what_comes_out():
    document = repeat(GROW, state=["grow", 0]) | {"show": use("Show", what=["end", 0])}
    document["shut"] = use("Gate", value=["while", 1], open=False)
    document["test"] = use("Compare", a=["shut", 0], comparison="<", b=3)
    tray = Tray()
    assert tray.shown(document) == []
    assert tray.ran == []


def test_a_longer_while_runs_only_the_turns_that_are_new():
    tray = Tray()
    tray.end(repeat(GROW, below=3, state=["grow", 0]))
    assert tray.end(repeat(GROW, below=5, state=["grow", 0])) == 15
    assert tray.ran == ["Join", "Join"]


@pytest.mark.parametrize("store", [MemoryStore(1 << 30), MemoryStore(0)])
def test_turns_use_what_is_made_outside_again_and_again(store: MemoryStore):
    body = {
        "outside": use("Halve", bead=["one", 0]),
        "first": use("Join", a=["while", 2], b=["outside", 0]),
        "second": use("Grow", bead=["first", 0], times=1),
        "third": use("Join", a=["second", 0], plus=0),
    }
    tray = Tray(store)
    assert tray.end(repeat(body, below=4, state=["third", 0])) == 34
    assert tray.ran.count("Halve") == 1


def test_a_while_of_3000_turns_runs():
    assert Tray().end(repeat(GROW, below=3000, state=["grow", 0], most_turns=3000)) == 3010 % 97


def test_what_a_turn_made_is_let_go_of():
    alive: list[weakref.ref[Bead]] = []
    most = 0

    @node("Make")
    def make(bead: Bead) -> Bead:
        nonlocal most
        made = Bead(bead.number + 1)
        alive.append(weakref.ref(made))
        gc.collect()
        most = max(most, sum(ref() is not None for ref in alive))
        return made

    body = {"make": use("Make", bead=["while", 2]), "again": use("Make", bead=["make", 0])}
    Tray(MemoryStore(0), extra=[make]).end(repeat(body, below=20, state=["again", 0]))
    assert len(alive) == 40
    assert most <= 4


def test_what_is_known_of_a_turn_is_forgotten_after_it():
    known: list[int] = []

    @node("Count")
    def count(bead: Bead, turn: int) -> Bead:
        if turn % 50 == 49:
            gc.collect()
            known.append(sum(type(each) is Step for each in gc.get_objects()))
        return bead

    @composite("Counted")
    def counted(bead: Bead, turn: int) -> Bead:
        return count(join(bead, plus=1), turn)

    body = {
        "counted": use("Counted", bead=["while", 2], turn=["while", 1]),
        "list": use("MakeList", item_1=["counted", 0], item_2=["while", 3]),
        "all": use("All", beads=["list", 0]),
    }
    Tray(MemoryStore(0), extra=[count, counted]).end(
        repeat(body, below=200, state=["counted", 0], state_2=["all", 0], most_turns=200)
    )
    assert len(known) == 4
    assert max(known) - min(known) < 10


def test_a_loop_inside_a_loop():
    document = each(
        {
            "more": use("Scatter", bead=["each", 1], count=2),
            "inner": use("ForEach", items=["more", 0], carried=["each", 1]),
            "join": use("Join", a=["inner", 1], b=["inner", 4]),
            "inner_end": use("ForEachEnd", loop=["inner", 0], result=["join", 0], carried=["inner", 4]),
        },
        result=["inner_end", 0],
    )
    assert Tray().end(document) == [20, 21, 22, 23, 24, 25]


def test_a_loop_inside_a_loop_may_go_over_something_from_outside():
    document = each(
        {
            "inner": use("ForEach", items=["list", 0]),
            "join": use("Join", a=["each", 1], b=["inner", 1]),
            "inner_end": use("ForEachEnd", loop=["inner", 0], result=["join", 0]),
        },
        items=2,
        result=["inner_end", 0],
    )
    assert Tray().end(document) == [20, 21, 21, 22]


def test_a_while_inside_a_for_each_begins_anew_in_every_turn():
    document = each(
        {
            "while": use("While", state=["each", 1]),
            "grow": use("Join", a=["while", 2], plus=5),
            "test": use("Compare", a=["while", 1], comparison="<", b=["each", 2]),
            "inner": use("WhileEnd", loop=["while", 0], condition=["test", 0], state=["grow", 0]),
        },
        result=["inner", 0],
    )
    assert Tray().end(document) == [10, 16, 22]


def test_output_nodes_in_a_loop_run_in_every_turn_and_every_time():
    document = each(ADD | {"show": use("Show", what=["add", 0])})
    tray = Tray()
    assert tray.shown(document) == ["Bead(number=10)", "Bead(number=12)", "Bead(number=14)"]
    assert tray.shown(document) == ["Bead(number=10)", "Bead(number=12)", "Bead(number=14)"]
    assert tray.ran == ["Show"] * 3


def test_output_nodes_in_a_loop_inside_a_loop_run_in_every_turn():
    document = each(
        {
            "inner": use("ForEach", items=["list", 0]),
            "join": use("Join", a=["each", 1], b=["inner", 1]),
            "show": use("Show", what=["join", 0]),
            "inner_end": use("ForEachEnd", loop=["inner", 0], carried=["each", 1]),
        },
        items=2,
    )
    assert Tray().shown(document) == [f"Bead(number={at})" for at in (20, 21, 21, 22)]


def test_output_nodes_in_a_while_run_in_every_turn_that_is_made():
    document = repeat(GROW | {"show": use("Show", what=["while", 2])}, state=["grow", 0])
    assert Tray().shown(document) == ["Bead(number=10)", "Bead(number=11)", "Bead(number=12)"]


def test_output_nodes_in_a_loop_find_what_others_needed_before():
    document = each({"sum": use("Join", a=["late", 0], b=["each", 1]), "show": use("Show", what=["sum", 0])}) | {
        "late": use("Halve", bead=["one", 0]),
        "early": use("Show", what=["late", 1]),
    }
    tray = Tray(MemoryStore(0))
    assert len(tray.shown({name: document[name] for name in ("one", "late", "early", *document)})) == 4
    assert tray.ran.count("Halve") == 1


def test_a_switch_in_a_loop_goes_its_way_in_every_turn():
    body = {
        "test": use("Compare", a=["each", 2], comparison="==", b=1),
        "chip": use("Chip", bead=["each", 1]),
        "way": use("Switch", on=["test", 0], if_true=["chip", 0], if_false=["one", 0]),
    }
    tray = Tray()
    assert tray.end(each(body, result=["way", 0])) == [10, 12, 10]
    assert tray.ran.count("Chip") == 1


def test_a_loop_may_stand_in_a_composite():
    @composite("Around")
    def around(beads: Many[Bead]) -> Many[Bead]:
        turn = for_each(beads, carried=beads[0])
        return for_each_end(turn.loop, result=join(turn.item, turn.carried), carried=turn.item).results

    document = LIST | {"end": use("Around", beads=["list", 0])}
    assert Tray(extra=[around]).end(document) == [20, 21, 23]


def test_asked_for_what_is_inside_a_loop_its_first_turn_is_made():
    assert Tray().run(each(ADD, result=["add", 0]), "add").checked().outputs["add"] == (Bead(10),)
    assert Tray().run(repeat(GROW, state=["grow", 0]), "grow").checked().outputs["grow"] == (Bead(11),)


def test_asked_for_the_first_of_no_turns_it_says_so():
    (found,) = Tray().run(each(ADD, items=0), "add").failures
    assert "there are no items, so there is no first turn to be looked at" in str(found)


def test_progress_counts_turns():
    tray = Tray()
    tray.end(repeat(GROW, state=["grow", 0], most_turns=9))
    assert [(event.value, event.maximum) for event in tray.events if isinstance(event, NodeProgressed)] == [
        (1, 9),
        (2, 9),
        (3, 9),
    ]
    tray.end(each(ADD, result=["add", 0]))
    assert [(event.value, event.maximum) for event in tray.events if isinstance(event, NodeProgressed)] == [
        (1, 3),
        (2, 3),
        (3, 3),
    ]


def test_ids_of_the_document_may_look_like_those_of_turns():
    document = each({"a": use("Join", a=["each", 1])}, result=["a", 0]) | {
        "end.0.a": use("Bead", number=70),
        "end.1": use("Bead", number=80),
        "each[0][1]": use("Bead", number=90),
    }
    tray = Tray()
    assert tray.end(document) == [10, 11, 12]
    found = tray.run(document, "end.0.a", "end", "each[0][1]").checked().outputs
    assert (found["end.0.a"], found["each[0][1]"]) == ((Bead(70),), (Bead(90),))


# What is wrong with a loop is said before anything runs.


def problem(document: dict[str, Any], *targets: str) -> str:
    return "; ".join(map(str, problems_of(NODES, document, list(targets) or ["end"])))


def test_an_end_of_another_kind_of_loop_is_refused():
    document = each(ADD) | {"end": use("WhileEnd", loop=["each", 0], condition=True)}
    assert "expected WHILE, but output 0 (loop) of node each (ForEach) gives FOR_EACH" in problem(document)


def test_a_second_end_is_refused():
    document = each(ADD, result=["add", 0]) | {"second": use("ForEachEnd", loop=["each", 0])}
    assert "node each (ForEach) has an end already: node end (ForEachEnd)" in problem(document, "end", "second")


def test_what_is_inside_a_loop_cannot_be_used_after_it():
    document = each(ADD, result=["add", 0]) | {"after": use("Join", a=["end", 1], b=["add", 0])}
    assert "node after (Join) uses what is made inside this loop, and what comes out of it" in problem(
        document, "after"
    )


def test_loops_that_overlap_are_refused():
    document = each(ADD) | {
        "other": use("ForEach", items=["list", 0]),
        "both": use("Join", a=["each", 1], b=["other", 1]),
        "show": use("Show", what=["both", 0]),
        "other_end": use("ForEachEnd", loop=["other", 0]),
    }
    assert "node both (Join) is in this loop and in the one that ends at node end (ForEachEnd)" in problem(
        document, "show"
    )
