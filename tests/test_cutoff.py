"""Early cut-off: what follows goes by what it is given, not by how that came to be."""

from typing import Any, NamedTuple

import pytest

from graph.node import Many, node
from graph.store import MemoryStore
from graph.values import Value
from tests.beads import Bead, Tray
from tests.toys import use


class Halved(NamedTuple):
    tens: Bead
    ones: Bead


def chain(number: int, **end: Any) -> dict[str, Any]:
    """A bead, polished to a multiple of five, and what is made of that."""
    return {
        "bead": use("Bead", number=number),
        "polish": use("Polish", bead=["bead", 0]),
        "join": use("Join", a=["polish", 0], plus=1),
        "end": use("Join", a=["join", 0], plus=2, **end),
    }


def test_a_change_that_leaves_an_output_as_it_was_runs_nothing_behind_it():
    tray = Tray()
    tray.end(chain(7))
    assert tray.end(chain(8)) == 8
    assert tray.ran == ["Bead", "Polish"]


def test_a_change_that_alters_it_runs_what_follows():
    tray = Tray()
    tray.end(chain(7))
    assert tray.end(chain(12)) == 13
    assert tray.ran == ["Bead", "Polish", "Join", "Join"]


def test_an_unchanged_graph_runs_nothing():
    tray = Tray()
    tray.end(chain(7))
    tray.end(chain(7))
    assert tray.ran == []


def test_without_room_in_the_store_everything_runs_each_time():
    tray = Tray(MemoryStore(0))
    for _ in range(2):
        assert tray.end(chain(7)) == 8
        assert tray.ran == ["Bead", "Polish", "Join", "Join"]


def test_output_nodes_behind_it_run_all_the_same():
    tray = Tray()
    for number in (7, 8):
        assert tray.shown(chain(number) | {"show": use("Show", what=["polish", 0])}) == ["Bead(number=5)"]
    assert tray.ran == ["Bead", "Polish", "Show"]


def test_each_output_stands_for_itself():
    @node("Both", cutoff=True)
    def both(bead: Bead) -> Halved:
        return Halved(Bead(bead.number // 10), Bead(bead.number % 10))

    def document(number: int) -> dict[str, Any]:
        return {
            "bead": use("Bead", number=number),
            "both": use("Both", bead=["bead", 0]),
            "tens": use("Join", a=["both", 0], plus=1),
            "ones": use("Join", a=["both", 1], plus=2),
            "end": use("Join", a=["tens", 0], b=["ones", 0]),
        }

    tray = Tray(extra=[both])
    tray.end(document(21))
    assert tray.end(document(25)) == 10
    assert tray.calls == [("Bead", 25), ("Join", Bead(5), None, 2), ("Join", Bead(3), Bead(7), 0)]


def test_a_composite_is_transparent():
    def document(number: int) -> dict[str, Any]:
        return chain(number) | {"join": use("Grow", bead=["polish", 0])}

    tray = Tray()
    tray.end(document(7))
    tray.end(document(8))
    assert tray.ran == ["Bead", "Polish"]


def test_a_composite_looks_at_what_it_is_given_and_not_at_how_that_came_to_be():
    def document(number: int) -> dict[str, Any]:
        return chain(number) | {"join": use("Look", bead=["polish", 0], other=["bead", 0])}

    tray = Tray()
    tray.end(document(2))
    tray.end(document(3))
    assert tray.ran == ["Bead", "Polish"]


@pytest.mark.parametrize("on", [True, ["test", 0]])
def test_a_switch_is_transparent(on: Any):
    def document(number: int, other: int) -> dict[str, Any]:
        return chain(number) | {
            "other": use("Bead", number=other),
            "weigh": use("Weigh", bead=["polish", 0]),
            "test": use("Compare", a=["weigh", 0], comparison="==", b=0),
            "join": use("Switch", on=on, if_true=["polish", 0], if_false=["other", 0]),
        }

    tray = Tray()
    tray.end(document(7, 1))
    tray.end(document(8, 2))
    assert tray.ran == ["Bead", "Polish"]
    tray.end(chain(7) | {"join": use("Switch", on=True, if_true=["polish", 0])})
    assert tray.ran == []


def test_a_list_is_as_good_as_its_items():
    def document(number: int) -> dict[str, Any]:
        return chain(number) | {
            "one": use("Bead", number=1),
            "list": use("MakeList", item_1=["polish", 0], item_2=["one", 0]),
            "grow": use("Grow", bead=["list", 0], times=1),
            "end": use("Thread", beads=["grow", 0]),
        }

    tray = Tray()
    tray.end(document(7))
    tray.end(document(8))
    assert tray.ran == ["Bead", "Polish"]
    tray.end(document(12))
    assert tray.calls[2:] == [("Join", Bead(10), None, 1), ("Thread", Bead(11), Bead(2), 0)]


def test_a_node_that_is_called_for_each_item_cuts_off_for_each():
    def document(number: int) -> dict[str, Any]:
        return {
            "bead": use("Bead", number=number),
            "list": use("Scatter", bead=["bead", 0], count=3),
            "polish": use("Polish", bead=["list", 0]),
            "join": use("Join", a=["polish", 0], plus=1),
            "end": use("Thread", beads=["join", 0]),
        }

    tray = Tray()
    tray.end(document(5))
    tray.end(document(6))  # 6, 7 and 8, of which one had not been polished yet
    assert tray.calls == [("Bead", 6), ("Scatter", Bead(6), 3), *[("Polish", Bead(at), 4) for at in (6, 7, 8)]]
    tray.end(document(9))
    assert tray.calls[-2:] == [("Join", Bead(10), None, 1), ("Thread", Bead(6), Bead(11), Bead(11), 0)]


def test_a_node_that_takes_and_gives_whole_lists_cuts_off():
    def document(*numbers: int) -> dict[str, Any]:
        beads: dict[str, Any] = {str(at): use("Bead", number=number) for at, number in enumerate(numbers)}
        items: dict[str, Any] = {f"item_{at + 1}": [str(at), 0] for at in range(len(numbers))}
        return beads | {
            "list": use("MakeList", **items),
            "assort": use("Assort", beads=["list", 0]),
            "join": use("Join", a=["assort", 0], plus=1),
            "end": use("Thread", beads=["join", 0]),
        }

    tray = Tray()
    tray.end(document(4, 9))
    tray.end(document(8, 5))
    assert tray.ran == ["Bead", "Bead", "Assort"]
    tray.end(document(8, 5, 3))
    assert tray.calls[2:] == [("Join", Bead(1), None, 1), ("Thread", Bead(2), Bead(3), Bead(5), 0)]


def test_a_loop_that_turns_out_the_same_changes_nothing_behind_it():
    def document(most: int) -> dict[str, Any]:
        return {
            "bead": use("Bead", number=12),
            "while": use("While", state=["bead", 0]),
            "polish": use("Polish", bead=["while", 2]),
            "test": use("Compare", a=["while", 1], comparison="<", b=most),
            "loop": use("WhileEnd", loop=["while", 0], condition=["test", 0], state=["polish", 0]),
            "end": use("Join", a=["loop", 0], plus=1),
        }

    tray = Tray()
    assert tray.end(document(1)) == 11
    assert tray.end(document(5)) == 11
    assert "Join" not in tray.ran


def test_numbers_and_texts_that_are_known_are_named_by_what_they_are():
    def document(index: int) -> dict[str, Any]:
        return {
            "numbers": use("NumberRange", start=4 - index, stop=9),
            "number": use("ListItem", items=["numbers", 0], index=index),
            "end": use("Bead", number=["number", 0]),
        }

    tray = Tray()
    assert tray.end(document(1)) == 4
    assert tray.end(document(2)) == 4
    assert tray.ran == []


def test_one_and_one_point_nought_are_not_the_same():
    @node("Tell", cutoff=True)
    def tell(number: Any) -> Any:
        return number

    @node("Kind")
    def kind(number: Any) -> str:
        return type(number).__name__

    tray = Tray(extra=[tell, kind])
    for number, name in ((1, "int"), (1.0, "float"), (True, "bool"), ("1", "str")):
        assert tray.end({"tell": use("Tell", number=number), "end": use("Kind", number=["tell", 0])}) == name


def test_a_value_that_cannot_be_digested_goes_by_how_it_was_made():
    class Secret(Value):
        """Not a frozen dataclass, so that nothing is known of what is in it."""

    @node("Hide", cutoff=True)
    def hide(bead: Bead) -> Secret:
        return Secret()

    @node("Find")
    def find(secret: Secret) -> Bead:
        ran.append("find")
        return Bead(1)

    def document(number: int) -> dict[str, Any]:
        return {
            "bead": use("Bead", number=number),
            "hide": use("Hide", bead=["bead", 0]),
            "end": use("Find", secret=["hide", 0]),
        }

    ran: list[str] = []
    tray = Tray(extra=[hide, find])
    for number in (1, 1, 2):
        tray.end(document(number))
    assert ran == ["find", "find"]


def test_items_that_cannot_be_digested_are_told_apart():
    class Secret(Value):
        def __init__(self, number: int) -> None:
            self.number = number

    @node("Hide", cutoff=True)
    def hide(bead: Bead) -> Many[Secret]:
        return [Secret(bead.number), Secret(bead.number + 1)]

    @node("Find")
    def find(secret: Secret) -> Bead:
        return Bead(secret.number)

    document = {
        "bead": use("Bead", number=1),
        "hide": use("Hide", bead=["bead", 0]),
        "end": use("Find", secret=["hide", 0]),
    }
    assert Tray(extra=[hide, find]).end(document) == [1, 2]
