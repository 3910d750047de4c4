from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, assert_type

import pytest
from pydantic import Field

from graph.builder import WorkflowBuilder
from graph.catalogue import Catalogue
from graph.execute import run
from graph.keys import Key, key_of
from graph.node import Named, node
from graph.resolve import resolve
from graph.store import MemoryStore
from graph.values import INJECTED, Service
from graph.workflow import Workflow, parse
from tests.toys import NOWHERE, Note, Pair, Yarn


class Dye(Service):
    pass


@node("Spin")
def spin(colour: str = "red", length: Annotated[int, Field(ge=1)] = 1) -> Yarn:
    return Yarn(colour, length)


@node("Split", title="Split a yarn")
def split(yarn: Yarn, dye: Dye = INJECTED) -> Pair:
    return Pair(yarn, yarn)


@node("Twist")
def twist(a: Yarn, b: Yarn | None = None, *, lengths: list[int] | None = None) -> Yarn:
    return Yarn(a.colour, a.length + (b.length if b else 0) + sum(lengths or []))


@node("Measure")
def measure(yarn: Yarn) -> int:
    return yarn.length


@node("Show")
def show(yarn: Yarn) -> Note:
    return Note(str(yarn))


CATALOGUE = Catalogue([spin, split, twist, measure, show])


def keys_of(workflow: Workflow) -> list[Key | None]:
    keys: dict[str, Key | None] = {}
    for step in resolve(workflow, CATALOGUE, NOWHERE).steps:
        keys[step.id] = key_of(step, keys)
    return list(keys.values())


def built() -> WorkflowBuilder:
    with WorkflowBuilder() as workflow:
        yarn = spin.titled("Blue yarn")(colour="bløu", length=2)
        pair = split(yarn)
        end = twist(pair.warp, b=pair.weft, lengths=[1, 2])
        show(twist(end))
    return workflow


def test_calls_become_a_document():
    document = built().document()
    assert document["1"] == {
        "class_type": "Spin",
        "inputs": {"colour": "bløu", "length": 2},
        "_meta": {"title": "Blue yarn"},
    }
    assert document["2"] == {"class_type": "Split", "inputs": {"yarn": ["1", 0]}, "_meta": {"title": "Split a yarn"}}
    assert document["3"]["inputs"] == {"a": ["2", 0], "b": ["2", 1], "lengths": {"__value__": [1, 2]}}


def test_calls_are_typed():
    with WorkflowBuilder():
        assert_type(spin("red"), Yarn)
        assert_type(split(spin()).weft, Yarn)
        assert_type(measure.titled("Length")(spin()), int)


def test_a_saved_workflow_has_the_same_keys(tmp_path: Path):
    workflow = built()
    saved = parse(workflow.save(tmp_path / "blue.json").read_bytes())
    assert keys_of(saved) == keys_of(workflow.workflow())
    assert saved["1"].title == "Blue yarn"


def test_a_built_workflow_runs():
    graph = resolve(built().workflow(), CATALOGUE, NOWHERE, ["3"])
    result = run(graph, MemoryStore(0), folders=NOWHERE, services={Dye: Dye()}).checked()
    assert result.outputs["3"] == (Yarn("bløu", 7),)


def test_a_literal_may_be_linked():
    with WorkflowBuilder() as workflow:
        spin(length=measure(spin()))
    assert workflow.document()["3"]["inputs"] == {"colour": "red", "length": ["2", 0]}


def test_outside_the_block_calls_run():
    with WorkflowBuilder() as workflow:
        spin()
    assert spin("blue") == Yarn("blue")
    assert len(workflow.document()) == 1


def test_an_error_in_the_block_ends_recording():
    with pytest.raises(ZeroDivisionError), WorkflowBuilder():
        raise ZeroDivisionError
    assert spin() == Yarn()


def test_a_builder_may_be_opened_again_and_inside_another():
    with WorkflowBuilder() as outer:
        with WorkflowBuilder() as inner:
            spin()
        spin("blue")
    with outer:
        spin("green")
    assert [node["inputs"]["colour"] for node in outer.document().values()] == ["blue", "green"]
    assert len(inner.document()) == 1


def misuse(call: Any, *arguments: Any) -> str:
    with WorkflowBuilder(), pytest.raises((TypeError, AttributeError)) as caught:
        call(*arguments)
    return str(caught.value)


def test_misuse_is_explained():
    with WorkflowBuilder():
        elsewhere = spin()
    assert "was made in another workflow" in misuse(twist, elsewhere)
    assert "Twist takes the output of a node as 'a' (YARN), but was given a Yarn" in misuse(twist, Yarn())
    assert "Twist needs an input 'a'" in misuse(twist)
    assert "unexpected keyword argument 'c'" in misuse(lambda: twist(c=1))  # pyright: ignore  # the mistake that is tested
    assert "so its truth cannot be read here" in misuse(lambda: bool(spin()))
    assert "so 'colour' cannot be read here" in misuse(lambda: spin().colour)
    assert "cannot be given this as 'lengths'" in misuse(lambda: twist(spin(), lengths=[measure(spin())]))


LOOKS: list[Callable[[Any], object]] = [
    lambda number: number + 1,
    lambda number: 2 * number,
    lambda number: number == 1,
    lambda number: number < 1,
    int,
    range,
    list,
    len,
    lambda number: 1 in number,
]


@pytest.mark.parametrize("look", LOOKS)
def test_what_is_not_computed_yet_has_no_value(look: Callable[[Any], object]):
    assert "not computed yet, so its value cannot be read here" in misuse(lambda: look(measure(spin())))


def test_a_document_is_a_copy():
    workflow = built()
    workflow.document()["1"]["inputs"]["colour"] = "changed"
    assert workflow.document()["1"]["inputs"]["colour"] == "bløu"


def test_inputs_that_are_no_identifiers_are_recorded_and_given_by_their_names():
    @node("Mix")
    def mix(yarn: Yarn, **shares: Annotated[float, Named(("in.0.", "out."), 0.5)]) -> Yarn:
        return Yarn(",".join(f"{name}={share}" for name, share in shares.items()))

    with WorkflowBuilder() as workflow:
        mixed: Any = mix(spin(), **{"out.": 0.25})
    (used,) = (each for each in workflow.document().values() if each["class_type"] == "Mix")
    assert (used["inputs"]["in.0."], used["inputs"]["out."]) == (0.5, 0.25)
    graph = resolve(workflow.workflow(), Catalogue((spin, mix)), NOWHERE, [mixed.step])
    assert run(graph, MemoryStore(1 << 20), folders=NOWHERE).outputs[mixed.step] == (Yarn("in.0.=0.5,out.=0.25"),)
