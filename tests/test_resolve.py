from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from graph.catalogue import Catalogue
from graph.folders import Folders
from graph.node import node
from graph.problems import InvalidWorkflow, Problem
from graph.resolve import resolve
from graph.workflow import read
from tests.toys import NOWHERE, Note, Pair, Yarn, graph_of, problems_of, use


@node("Spin")
def spin(colour: Literal["red", "blue"] = "red", length: Annotated[int, Field(ge=1, lt=100)] = 1) -> Yarn: ...


@node("Split")
def split(yarn: Yarn) -> Pair: ...


@node("Twist")
def twist(a: Yarn, b: Yarn | None = None) -> Yarn: ...


@node("Measure")
def measure(yarn: Yarn) -> int: ...


@node("Cut")
def cut(yarn: Yarn, at: float, sharp: bool = True, text: str = "", lengths: list[int] | None = None) -> Yarn: ...


@node("Keep")
def keep(anything: Any) -> Note: ...


@node("Show")
def show(yarn: Yarn) -> Note: ...


NODES = [spin, split, twist, measure, cut, keep, show]
SPUN = {"spin": use("Spin")}


def problem(**used: Any) -> Problem:
    """The only problem of a document whose node `end` may show the node `bad`."""
    (found,) = problems_of(NODES, SPUN | {"end": use("Show", yarn=["bad", 0])} | used)
    return found


def seen(**inputs: Any) -> Any:
    """What Cut sees of its literals."""
    steps = graph_of(NODES, SPUN | {"cut": use("Cut", yarn=["spin", 0], **inputs)}, ["cut"]).steps
    return dict(steps[-1].literals)


def test_an_unknown_class_is_named_with_the_nearest():
    found = problem(bad=use("Spinn"))
    assert (found.kind, found.node_id, found.suggestion) == ("unknown_class", "bad", "did you mean 'Spin'?")
    assert str(found) == "node bad (Spinn): there is no node called 'Spinn' (did you mean 'Spin'?)"


def test_a_missing_required_input_is_named():
    found = problem(bad=use("Twist", "Left"))
    assert (found.kind, found.input, found.expected) == ("missing_input", "a", "YARN")
    assert str(found).startswith("node bad (Twist “Left”), input 'a': this input is required and missing")


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({"length": 7.9}, "a whole number, found 7.9"),
        ({"length": "7.9"}, "a whole number, found '7.9'"),
        ({"length": "many"}, "a whole number, found 'many'"),
        ({"length": None}, "a whole number, found None"),
        ({"length": {}}, "a whole number, found {}"),
    ],
)
def test_a_literal_of_the_wrong_type_is_named(inputs: dict[str, Any], expected: str):
    found = problem(bad=use("Spin", **inputs))
    assert (found.kind, found.input) == ("wrong_type", "length")
    assert expected in found.message


def test_what_can_be_read_as_the_type_is():
    assert seen(at="7", sharp="false", text=7) == {"at": 7.0, "sharp": False, "text": "7", "lengths": None}
    assert seen(at=7, sharp=1)["sharp"] is True


@pytest.mark.parametrize(
    "inputs", [{"at": float("nan")}, {"at": "inf"}, {"at": 1, "text": None}, {"at": 1, "sharp": 2}]
)
def test_what_cannot_be_read_as_the_type_is_refused(inputs: dict[str, Any]):
    assert problem(bad=use("Cut", yarn=["spin", 0], **inputs)).kind == "wrong_type"


@pytest.mark.parametrize("length", [0, 100, "100", 100.0])
def test_out_of_range_says_the_range(length: object):
    found = problem(bad=use("Spin", length=length))
    assert (found.kind, found.expected) == ("out_of_range", "at least 1 and below 100")
    assert "it must be at least 1 and below 100" in found.message


def test_not_a_choice_says_the_nearest_or_all():
    assert problem(bad=use("Spin", colour="blu")).suggestion == "did you mean 'blue'?"
    far = problem(bad=use("Spin", colour=7))
    assert (far.kind, far.suggestion) == ("not_a_choice", "choices: 'red', 'blue'")


def test_a_link_to_a_missing_node_is_named():
    found = problem(bad=use("Twist", a=["spun", 0]))
    assert (found.kind, found.input, found.suggestion) == ("missing_node", "a", "did you mean 'spin'?")


@pytest.mark.parametrize("index", [1, -1, 10**30])
def test_a_link_to_a_missing_output_is_named(index: int):
    found = problem(bad=use("Twist", a=["spin", index]))
    assert (found.kind, found.found) == ("missing_output", str(index))
    assert "of node spin (Spin), which has 0: YARN" in found.message


def test_a_link_of_the_wrong_type_says_which_output_would_fit():
    document = {"bad": use("Twist", a=["measure", 0]), "measure": use("Measure", yarn=["spin", 0])}
    found = problem(**document)
    assert (found.kind, found.expected, found.found) == ("type_mismatch", "YARN", "INT")
    assert "expected YARN, but output 0 (INT) of node measure (Measure) gives INT" in found.message


@pytest.mark.parametrize(
    "link", [[], ["spin"], ["spin", 0, 0], ["spin", "0"], ["spin", True], ["spin", 0.5], [None, 0]]
)
def test_a_list_that_is_no_link_is_refused(link: list[Any]):
    found = problem(bad=use("Twist", a=link))
    assert (found.kind, found.input) == ("bad_link", "a")


@pytest.mark.parametrize("given", ["spin", 0, {}, True])
def test_a_literal_where_a_link_is_needed_is_refused(given: object):
    assert problem(bad=use("Twist", a=given)).message.startswith("expected a link to a node that gives YARN, found")


def test_ids_and_indices_may_be_numbers():
    document = {"1": use("Spin"), "end": use("Show", yarn=[1, 0.0])}
    assert graph_of(NODES, document).steps[-1].links == {"yarn": ("1", 0)}


def test_a_cycle_is_named_in_full():
    (found,) = problems_of(
        NODES,
        {
            "end": use("Show", yarn=["a", 0]),
            "a": use("Twist", a=["b", 0]),
            "b": use("Twist", a=["c", 0]),
            "c": use("Twist", a=["a", 0], b=["a", 0]),
        },
    )
    assert found.kind == "cycle"
    assert "a (Twist) → c (Twist) → b (Twist) → a (Twist)" in found.message


def test_a_node_that_links_to_itself_is_a_cycle():
    assert "bad (Twist) → bad (Twist)" in problem(bad=use("Twist", a=["bad", 0])).message


def test_thousands_of_cycles_are_reported_in_linear_time():
    document = {str(at): use("Twist", a=[str(at + 1), 0], b=["0", 0]) for at in range(5000)}
    document |= {"5000": use("Twist", a=["0", 0]), "end": use("Show", yarn=["0", 0])}
    found = problems_of(NODES, document)
    assert 1 <= len(found) <= 10
    assert {one.kind for one in found} == {"cycle"}


def test_a_workflow_without_output_is_refused():
    (found,) = problems_of(NODES, SPUN)
    assert found.kind == "no_output"


def test_an_unknown_target_is_refused():
    (found,) = problems_of(NODES, SPUN, ["spun"])
    assert (found.kind, found.suggestion) == ("unknown_target", "did you mean 'spin'?")


def test_all_problems_are_reported_at_once():
    found = problems_of(
        NODES,
        {
            "1": use("Spin", length=0, colour="green"),
            "2": use("Twist", a=["1", 0], b=["none", 0]),
            "3": use("Cut", yarn=["2", 0]),
            "4": use("Show", yarn=["3", 0]),
            "5": use("Nothing"),
            "6": use("Show"),
        },
    )
    assert [(one.node_id, one.kind) for one in found] == [
        ("5", "unknown_class"),
        ("1", "not_a_choice"),
        ("1", "out_of_range"),
        ("2", "missing_node"),
        ("3", "missing_input"),
        ("6", "missing_input"),
    ]


def test_what_no_output_needs_is_not_checked_but_must_exist():
    document = SPUN | {"end": use("Show", yarn=["spin", 0]), "odd": use("Twist", a=["nowhere", 9])}
    assert problems_of(NODES, document) == ()
    (found,) = problems_of(NODES, document | {"odder": use("Twister")})
    assert found.node_id == "odder"


def test_undeclared_inputs_are_warned_about_and_ignored():
    document = SPUN | {"end": use("Show", yarn=["spin", 0], colour=["nowhere", 0], yarm=1)}
    graph = graph_of(NODES, document)
    assert graph.warnings[0] == "node end (Show) has no input 'colour'; it is ignored"
    assert len(graph.warnings) == 2


def test_a_literal_list_is_wrapped():
    assert seen(at=1, lengths={"__value__": [1, "2"]})["lengths"] == [1, 2]


def test_a_literal_nested_without_end_is_refused():
    nested: list[Any] = []
    for _ in range(900):
        nested = [nested]
    (found,) = problems_of(NODES, {"end": use("Keep", anything={"__value__": nested})})
    assert "nested more than 100 deep" in found.message


def test_a_target_asked_for_twice_is_one():
    assert graph_of(NODES, SPUN, ["spin", "spin"]).targets == ("spin",)


def test_a_chain_of_20000_resolves_in_order():
    document = {"0": use("Spin")} | {str(at): use("Twist", a=[str(at - 1), 0]) for at in range(1, 20_000)}
    document = dict(reversed(document.items())) | {"end": use("Show", yarn=["19999", 0])}
    assert [step.id for step in graph_of(NODES, document).steps[:3]] == ["0", "1", "2"]


def test_thousands_of_unknown_classes_are_all_reported():
    found = problems_of(NODES, {str(at): use(f"Spin{at}") for at in range(3000)})
    assert len(found) == 3000
    assert found[0].suggestion


@dataclass(frozen=True)
class Shelf:
    """Files of the input folder."""

    def names(self, folders: Folders) -> list[str]:
        return sorted(file.name for file in (folders.data / "input").iterdir())

    def locate(self, folders: Folders, name: str) -> Path:
        if "/" in name:
            raise ValueError(f"{name!r} leads out of the shelf")
        return folders.data / "input" / name


@node("Fetch")
def fetch(file: Annotated[str, Shelf()]) -> Yarn: ...


def fetched(tmp_path: Path, name: str) -> str:
    (tmp_path / "input").mkdir(exist_ok=True)
    (tmp_path / "input" / "merino.txt").write_text("wool")
    workflow = read({"1": use("Fetch", file=name)})
    return resolve(workflow, Catalogue([fetch]), Folders.below(tmp_path), ["1"]).steps[0].files["file"]


def test_a_file_is_identified_by_name_and_content(tmp_path: Path):
    name, _, content = fetched(tmp_path, "merino.txt").partition(":")
    assert (name, len(content)) == ("merino.txt", 64)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("merion.txt", "'merion.txt' cannot be used: No such file or directory (did you mean 'merino.txt'?)"),
        ("x", "(there is: 'merino.txt')"),
        ("../x", "leads out of the shelf"),
        ("a\0b", "cannot be used"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_what_there_is(tmp_path: Path, name: str, message: str):
    with pytest.raises(InvalidWorkflow) as caught:
        fetched(tmp_path, name)
    assert caught.value.problems[0].kind == "missing_file"
    assert message in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
LINKS = st.tuples(st.sampled_from("abcde"), st.integers(-1, 2)).map(list)
USES = st.fixed_dictionaries(
    {
        "class_type": st.sampled_from([*(found.name for found in NODES), "Unknown"]),
        "inputs": st.dictionaries(
            st.sampled_from(["yarn", "a", "b", "colour", "length", "at", "lengths", "anything", "odd"]), LINKS | JSON
        ),
    }
)


@given(st.dictionaries(st.sampled_from("abcde"), USES, min_size=1))
def test_any_document_is_either_runnable_or_refused_with_sentences(document: dict[str, Any]):
    try:
        graph = resolve(read(document), Catalogue(NODES), NOWHERE)
    except InvalidWorkflow as error:
        assert error.problems
        assert all(one.message and str(one) for one in error.problems)
    else:
        known = set[str]()
        for step in graph.steps:
            assert known.issuperset(source for source, _ in step.links.values())
            known.add(step.id)
