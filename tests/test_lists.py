"""Lists on links (wire_protocol.md §10.4): who is called how often, with what, and what comes of it."""

from typing import Any

import pytest

from graph.node import Many, composite, node
from graph.store import MemoryStore
from tests.beads import Bead, Tray, chip, grow, join, thread
from tests.toys import use

THREE = {"one": use("Bead", number=10), "list": use("Scatter", bead=["one", 0], count=3)}
EMPTY = {"one": use("Bead", number=10), "list": use("Scatter", bead=["one", 0], count=0)}


def test_a_node_is_called_once_for_each_item():
    tray = Tray()
    assert tray.end(THREE | {"end": use("Join", a=["list", 0], plus=5)}) == [15, 16, 17]
    assert tray.ran == ["Bead", "Scatter", "Join", "Join", "Join"]


def test_what_follows_is_called_once_for_each_item_too():
    document = THREE | {"join": use("Join", a=["list", 0]), "end": use("Halve", bead=["join", 0])}
    assert Tray().end(document) == [5, 5, 6]


def test_all_outputs_of_a_mapped_node_are_lists():
    document = THREE | {"halve": use("Halve", bead=["list", 0]), "end": use("Thread", beads=["halve", 1])}
    tray = Tray()
    tray.end(document)
    assert tray.calls[-1] == ("Thread", Bead(5), Bead(6), Bead(6), 0)


def test_there_are_as_many_calls_as_the_longest_list_has_items():
    document = THREE | {
        "two": use("Scatter", bead=["one", 0], count=2),
        "end": use("Join", a=["list", 0], b=["two", 0]),
    }
    assert len(Tray().end(document)) == 3


def test_the_last_item_of_a_shorter_list_is_repeated():
    document = THREE | {
        "two": use("Scatter", bead=["one", 0], count=2),
        "end": use("Join", a=["two", 0], b=["list", 0]),
    }
    assert Tray().end(document) == [20, 22, 23]


def test_what_is_no_list_goes_to_every_call():
    document = THREE | {"end": use("Join", a=["list", 0], b=["one", 0])}
    assert Tray().end(document) == [20, 21, 22]


def test_an_empty_list_means_no_call_and_empty_outputs():
    tray = Tray()
    assert tray.end(EMPTY | {"end": use("Join", a=["list", 0])}) == []
    assert "Join" not in tray.ran


def test_an_empty_list_beside_a_longer_one_means_no_call_either():
    tray = Tray()
    document = EMPTY | {"more": use("Scatter", bead=["one", 0]), "end": use("Join", a=["list", 0], b=["more", 0])}
    assert tray.end(document) == []
    assert "Join" not in tray.ran


def test_a_node_whose_inputs_all_have_defaults_is_not_called_for_an_empty_list():
    tray = Tray()
    document = {"none": use("NumberRange", stop=0), "end": use("Bead", number=["none", 0])}
    assert tray.end(document) == []
    assert tray.ran == []


def test_all_outputs_of_a_node_that_was_given_an_empty_list_are_empty():
    assert (
        Tray().run(EMPTY | {"end": use("Halve", bead=["list", 0])}, "end").outputs["end"]
        == Tray().run(EMPTY | {"end": use("Fork", bead=["list", 0])}, "end").outputs["end"]
    )


def test_an_output_node_is_called_for_each_item():
    assert Tray().shown(THREE | {"end": use("Show", what=["list", 0])}) == [f"Bead(number={at})" for at in (10, 11, 12)]


def test_an_output_node_shows_nothing_of_an_empty_list():
    tray = Tray()
    assert tray.shown(EMPTY | {"end": use("Show", what=["list", 0])}) == []
    assert "Show" not in tray.ran


def test_who_takes_many_gets_the_whole_list_in_one_call():
    tray = Tray()
    tray.end(THREE | {"end": use("Thread", beads=["list", 0])})
    assert tray.calls[-1] == ("Thread", Bead(10), Bead(11), Bead(12), 0)


def test_who_takes_many_gets_what_is_no_list_as_a_list_of_one():
    tray = Tray()
    tray.end(THREE | {"end": use("Thread", beads=["one", 0])})
    assert tray.calls[-1] == ("Thread", Bead(10), 0)


def test_who_takes_many_is_called_with_an_empty_list():
    tray = Tray()
    assert tray.end(EMPTY | {"end": use("Thread", beads=["list", 0], knot=4)}) == 4
    assert tray.calls[-1] == ("Thread", 4)


def test_who_takes_many_and_another_list_is_called_for_each_item_of_the_other():
    document = THREE | {
        "knots": use("NumberRange", stop=2),
        "end": use("Thread", beads=["list", 0], knot=["knots", 0]),
    }
    assert Tray().end(document) == [68, 69]


def test_lists_of_outputs_are_put_end_to_end():
    document = THREE | {"end": use("Scatter", bead=["list", 0], count=2)}
    assert Tray().end(document) == [10, 11, 11, 12, 12, 13]


def test_an_output_that_is_no_list_beside_one_that_is_has_one_item_for_each_call():
    result = Tray().run(THREE | {"end": use("Scatter", bead=["list", 0], count=2)}, "end").checked()
    assert [len(items.values) for items in result.outputs["end"]] == [6, 3]  # pyright: ignore  # outputs are of any type


def test_only_one_level_is_flattened():
    @node("Pairs")
    def pairs(bead: Bead) -> Many[list[int]]:
        return [[bead.number, 0], [bead.number, 1]]

    tray = Tray(extra=[pairs])
    assert tray.end(THREE | {"end": use("Pairs", bead=["list", 0])}) == [
        [at, end] for at in (10, 11, 12) for end in (0, 1)
    ]


def test_literals_that_come_by_a_link_are_mapped_too():
    tray = Tray()
    assert tray.end({"range": use("NumberRange", stop=3), "end": use("Bead", number=["range", 0])}) == [0, 1, 2]
    assert tray.ran == ["Bead"] * 3


def test_a_composite_is_expanded_once_for_each_item_and_its_results_come_in_order():
    document = THREE | {"end": use("Grow", bead=["list", 0], times=["times", 0]), "times": use("NumberRange", stop=3)}
    assert Tray().end(document) == [10, 12, 15]


def test_calls_that_run_more_nodes_and_calls_that_do_not_are_put_together_in_order():
    document = THREE | {"end": use("Look", bead=["list", 0], other=["one", 0])}
    assert Tray().end(document) == [10, 21, 12]


def test_a_composite_may_take_a_whole_list_and_give_one():
    document = THREE | {"all": use("All", beads=["list", 0]), "end": use("Fan", bead=["all", 0], count=3)}
    assert Tray().end(document) == [33, 34, 36]


def test_a_composite_may_pass_on_a_list_to_who_takes_many():
    @composite("Twice")
    def twice(beads: Many[Bead]) -> Bead:
        return thread([join(bead, plus=1) for bead in beads], knot=1)

    assert Tray(extra=[twice]).end(THREE | {"end": use("Twice", beads=["list", 0])}) == 11 + 24 + 39 + 1


def test_one_item_that_fails_fails_its_node_and_names_itself():
    document = THREE | {"list": use("Scatter", bead=["one", 0], count=5), "end": use("Chip", bead=["list", 0])}
    assert str(Tray().failure(document)) == "node end (Chip) failed: node end.3 (Chip) failed: ValueError: it broke"


def test_a_changed_item_is_the_only_one_that_runs_again():
    def document(last: int) -> dict[str, Any]:
        beads = {str(at): use("Bead", number=number) for at, number in enumerate((1, 2, last))}
        return beads | {
            "list": use("MakeList", item_1=["0", 0], item_2=["1", 0], item_3=["2", 0]),
            "end": use("Join", a=["list", 0], plus=1),
        }

    tray = Tray()
    tray.end(document(3))
    assert tray.end(document(4)) == [2, 3, 5]
    assert tray.calls == [("Bead", 4), ("Join", Bead(4), None, 1)]


def test_an_item_is_the_same_in_a_list_and_alone():
    tray = Tray()
    document = THREE | {"list": use("MakeList", item_1=["one", 0]), "end": use("Join", a=["list", 0])}
    tray.end(document)
    tray.end(THREE | {"end": use("Join", a=["one", 0])})
    assert tray.ran == []


def test_items_that_are_outputs_of_one_node_are_told_apart():
    document = {
        "one": use("Bead", number=11),
        "halve": use("Halve", bead=["one", 0]),
        "list": use("MakeList", item_1=["halve", 0], item_2=["halve", 1]),
        "end": use("Grow", bead=["list", 0], times=1),
    }
    assert Tray().end(document) == [6, 7]


@pytest.mark.parametrize("store", [MemoryStore(1 << 30), MemoryStore(0)])
def test_a_second_run_gives_the_same_lists(store: MemoryStore):
    document = THREE | {
        "grow": use("Grow", bead=["list", 0]),
        "all": use("MakeList", item_1=["grow", 0], item_2=["one", 0], item_3=["list", 0]),
        "slice": use("ListSlice", items=["all", 0], start=1, stop=5),
        "end": use("Join", a=["slice", 0]),
    }
    tray = Tray(store)
    assert tray.end(document) == tray.end(document) == [14, 15, 10, 10]
    assert (tray.ran == []) == (store.max_bytes > 0)


# The nodes for lists.


def listed(*numbers: int) -> dict[str, Any]:
    """These numbers as a list of beads, `list`."""
    beads: dict[str, Any] = {f"b{at}": use("Bead", number=number) for at, number in enumerate(numbers)}
    items: dict[str, Any] = {f"item_{at + 1}": [f"b{at}", 0] for at in range(len(numbers))}
    return beads | {"list": use("MakeList", **items)}


def test_make_list_leaves_out_what_is_not_connected_and_joins_lists():
    document = THREE | {"end": use("MakeList", item_2=["one", 0], item_5=["list", 0])}
    assert Tray().end(document) == [10, 10, 11, 12]


@pytest.mark.parametrize(("index", "expected"), [(0, 3), (2, 5), (-1, 5), (-3, 3)])
def test_list_item_counts_from_either_end(index: int, expected: int):
    assert Tray().end(listed(3, 4, 5) | {"end": use("ListItem", items=["list", 0], index=index)}) == expected


def test_list_item_says_how_long_the_list_is():
    found = Tray().failure(listed(3, 4) | {"end": use("ListItem", items=["list", 0], index=2)})
    assert str(found) == "node end (ListItem) failed: ValueError: there is no item 2 in a list of 2"


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"start": 1}, [2, 3, 4, 5]),
        ({"stop": 2}, [1, 2]),
        ({"stop": -1}, [1, 2, 3, 4]),
        ({"start": -2}, [4, 5]),
        ({"step": 2}, [1, 3, 5]),
        ({"start": 4, "stop": 1}, []),
        ({"step": -1}, [5, 4, 3, 2, 1]),
        ({"step": -1, "start": 1, "stop": 4}, [4, 3, 2]),
        ({"step": -2}, [5, 3, 1]),
        ({"step": -1, "stop": -1}, [4, 3, 2, 1]),
    ],
)
def test_list_slice_takes_some_of_the_items(inputs: dict[str, Any], expected: list[int]):
    assert Tray().end(listed(1, 2, 3, 4, 5) | {"end": use("ListSlice", items=["list", 0], **inputs)}) == expected


def test_repeat_item_repeats_a_list_as_a_whole():
    assert Tray().end(listed(1, 2) | {"end": use("RepeatItem", item=["list", 0], times=2)}) == [1, 2, 1, 2]
    assert Tray().end(listed(1, 2) | {"end": use("RepeatItem", item=["b0", 0], times=0)}) == []


def test_list_length_counts():
    assert Tray().end(listed(7, 7, 7) | {"end": use("ListLength", items=["list", 0])}) == 3


def test_number_range_counts_either_way():
    assert Tray().end({"end": use("NumberRange", start=2, stop=8, step=3)}) == [2, 5]
    assert Tray().end({"end": use("NumberRange", start=3, stop=0, step=-1)}) == [3, 2, 1]


def test_steps_that_lead_nowhere_are_refused():
    assert "a step of 0 leads nowhere" in str(Tray().failure({"end": use("NumberRange", step=0)}))
    sliced = listed(1, 2) | {"end": use("ListSlice", items=["list", 0], step=0)}
    assert "a step of 0 leads nowhere" in str(Tray().failure(sliced))


def test_a_list_that_was_meant_as_a_mistake_is_refused():
    assert "a list has 100,000 at most" in str(Tray().failure({"end": use("NumberRange", stop=1_000_000_000)}))


def test_text_lines_are_items_without_the_empty_ones():
    from nodes.lists import text_lines

    assert text_lines("one\n\n  two \n") == ["one", "two"]
    assert text_lines("one\n\ntwo", keep_empty=True) == ["one", "", "two"]


def test_nodes_are_functions_outside_of_a_workflow():
    assert grow(Bead(1), times=2) == Bead(4)
    with pytest.raises(ValueError, match="it broke"):
        chip(Bead(3))
